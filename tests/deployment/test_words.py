"""The words of deploy.py as a user says them, against moto's server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployment import commands, console, views
from tests.deployment.conftest import (
    OCI,
    ROLE,
    Moto,
    Shell,
    make_image,
    make_role,
    save_model,
    settings_file,
)
from tests.deployment.test_story import MORE, leftovers


@pytest.fixture
def image(moto: Moto) -> str:
    make_role(moto)
    return make_image(moto, labels={"skserve.scikit-learn": "1.9"})


JSON_SERVICES = ("sagemaker", "application-autoscaling", "cloudwatch")


def test_an_online_dry_run_equals_the_plan_that_the_next_run_applies(
    image: str, moto: Moto, shell: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[Any] = []
    real = commands.apply_plan.apply

    def recorded(cloud: Any, planned: Any, *more: Any) -> Any:
        applied.append(console.as_data(planned))
        return real(cloud, planned, *more)

    monkeypatch.setattr(commands.apply_plan, "apply", recorded)
    settings_file(folder, image, MORE)
    changes: list[list[str]] = [
        [],
        ["--choose", "model.joblib"],
        ["--instance-type", "ml.c5.large"],
    ]
    for words in changes:
        before = len(moto.sent)
        dry = shell("plan", "--json", *words).json
        assert len(moto.sent) == before, "a dry run changes nothing"
        assert shell("--dry-run", "--json", *words).json == dry
        shell.change(*words)

        assert dry["plan"] == json.loads(json.dumps(applied.pop()))
        made = [step for step in dry["plan"]
                if step.get("service") in JSON_SERVICES]  # fmt: skip
        got = [arguments for _, arguments in moto.sent[before:]]
        assert [step["arguments"] for step in made] == got
    assert shell("plan", "--json").json["plan"] != []


def test_without_credentials_a_plan_assumes_that_nothing_exists(
    shell: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file(folder, "123456789012.dkr.ecr.eu-west-1.amazonaws.com/skserve:1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    ran = shell("plan", "--json")

    assert ran.json["assuming_nothing_exists"]
    assert "assuming nothing exists" in ran.err
    assert [step.get("operation") for step in ran.json["plan"]].count("create_endpoint") == 1
    assert "log in" in shell(code=1).err


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("[serverless]\nmemory_mb = 2048\n", "serverless is billed by use"),
        ('[async]\noutput = "s3://sagemaker-eu-west-1-123456789012/out"\n', "0.115 USD per hour"),
    ],
)
def test_serverless_and_async_are_made_called_and_deleted(
    settings: str, told: str, image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image, settings + '[smoke]\nbody = "1,2"\n')

    assert told in shell.change().err
    assert shell.change("invoke", "--data", "1,2", "--wait", "5").out == "1\n"
    shell.change("delete", "--yes")

    assert leftovers(moto) == []


def test_an_async_test_call_that_fails_is_a_failure(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image, '[async]\noutput = "s3://x/out"\n[smoke]\nbody = "1,2"\n')
    moto.next(async_fails=True, answer="wrong columns")

    ran = shell.change(code=1)

    assert "wrong columns" in ran.err
    assert "it bills until" in ran.err


def refused(shell: Shell, *words: str) -> str:
    """Return why preflight refuses."""
    return " ".join(shell.change(*words, code=3).err.split())


def test_preflight_refuses_before_anything_is_made(moto: Moto, shell: Shell, folder: Path) -> None:
    good, oci = make_image(moto), make_image(moto, "oci", OCI)
    arm = make_image(moto, "arm", architecture="arm64")
    old = make_image(moto, "old", labels={"skserve.scikit-learn": "1.3"})
    settings_file(folder, good, role=ROLE)
    assert "there is no role skserve" in refused(shell)
    make_role(moto, "ec2.amazonaws.com")
    assert "does not let sagemaker.amazonaws.com assume it" in refused(shell)
    moto.client("iam").delete_role(RoleName="skserve")
    make_role(moto)

    assert "and SageMaker takes application/vnd.docker" in refused(shell, "--image", oci)
    assert "linux/amd64 is needed" in refused(shell, "--image", arm)
    assert "linux/arm64 is needed" in refused(shell, "--instance-type", "ml.c7g.large")
    assert "SKLEARN=1.9" in refused(shell, "--image", old)
    assert "does not exist" in refused(shell, "--image", good[:-1] + "9")
    moto.next(quota=0.0)
    assert "0 of ml.m5.large are allowed, 1 are asked for" in refused(shell)
    assert leftovers(moto) == []
    moto.next(quota=4.0)
    assert "in service" in shell.change("--image", old, "--force").out


def test_a_price_is_told_or_unknown_and_never_invented(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image)
    assert "1 x ml.m5.large, each 0.115 USD per hour" in shell("plan").err
    moto.next(prices=["0.115", "0.2"])
    assert "each unknown per hour" in shell("plan").err
    moto.next(prices=[])
    assert "each unknown per hour" in shell("plan").err


def test_an_endpoint_made_elsewhere_needs_adopt(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image)
    shell.change()
    arn = moto.client("sagemaker").describe_endpoint(EndpointName="wine")["EndpointArn"]
    moto.client("sagemaker").delete_tags(ResourceArn=arn, TagKeys=["skserve:endpoint"])
    save_model(folder / "model.joblib", 4.0)

    assert "not made by this tool" in refused(shell)
    assert "not made by this tool" in refused(shell, "delete", "--yes")
    assert "in service" in shell.change("--adopt").out
    shell.change("delete", "--yes")


def test_transform_notices_answers_that_do_not_line_up(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image)
    (folder / "rows.csv").write_text("1,2\n3,4\n")
    moto.next(lose_lines=1)

    ran = shell.change("transform", "rows.csv", code=1)

    assert "has 2 lines and its output 1" in ran.err


def test_the_role_is_printed_and_made(moto: Moto, shell: Shell, folder: Path) -> None:
    settings_file(folder, make_image(moto))
    printed = shell("role").json
    assert "sagemaker.amazonaws.com" in json.dumps(printed["trust"])

    made = shell("role", "--create")
    again = shell("role", "--create")

    assert made.out == again.out == f"{ROLE}\n"
    policy = moto.client("iam").get_role_policy(
        RoleName="skserve", PolicyName="skserve-endpoint-wine"
    )
    assert policy["PolicyDocument"] == printed["permissions"]
    assert "in service" in shell.change().out


def test_exit_codes_and_json_of_failures(shell: Shell, folder: Path) -> None:
    assert shell("--name", "bad_name", code=2).err.startswith("error: flags: name")
    (folder / "endpoint.toml").write_text('name = "wine"\n[serverless]\n[instance]\n')
    failure = shell("status", "--json", code=3).json
    assert failure["exit_code"] == 3
    assert "endpoint.toml:2: serverless: an endpoint is serverless" in failure["error"]
    assert "Usage" in shell("--nonsense", code=2).err


def test_deleting_needs_a_yes_and_nothing_is_nothing(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image)
    assert "nothing of it exists" in shell("delete").out
    shell.change()
    assert "--yes" in shell("delete", code=2).err
    assert "InService" in shell("status").out
    assert "delete_endpoint" in shell("delete", "--dry-run").out
    shell.change("delete", "--yes")
    assert "there is no endpoint wine" in shell("status", code=1).err


def test_list_and_logs_look_only(image: str, moto: Moto, shell: Shell, folder: Path) -> None:
    settings_file(folder, image)
    shell.change()
    before = len(moto.sent)

    (row,) = shell("list", "--json").json
    assert (row["name"], row["calls_last_day"], row["idle"]) == ("wine", 0, "")
    assert "holds no lines yet" in shell("logs").err
    assert len(moto.sent) == before


def test_following_a_log_prints_each_line_once(
    shell: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file(folder, "x")
    log = [(1, "a"), (2, "b"), (2, "c"), (9, "d")]
    there = [2, 2, 2, 3, 3, 4, 4]  # lines at each look

    def events(cloud: Any, name: str, lines: int, since_ms: int = 0) -> list[tuple[int, str]]:
        if not there:
            raise KeyboardInterrupt
        return [one for one in log[: there.pop(0)] if one[0] >= since_ms][-lines:]

    monkeypatch.setattr(views.cloudwatch, "events", events)
    said = shell.change("logs", "--follow", code=1).out

    assert [line[-1] for line in said.splitlines()] == ["a", "b", "c", "d"]


def test_options_before_a_word_and_after_it_mean_the_same(shell: Shell, folder: Path) -> None:
    settings_file(folder, "x", name="other")
    (folder / "endpoint.toml").rename(folder / "o.toml")

    before = shell("-f", "o.toml", "role")
    after = shell("role", "-f", "o.toml")

    assert before.out == after.out
    assert "other" in before.out


def test_a_model_that_lies_in_s3_is_used_where_it_is(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    """Its ETag is part of the name: another content is another model, and so an update."""
    settings_file(folder, image, model="")
    s3 = moto.client("s3")
    where = {"LocationConstraint": "eu-west-1"}
    s3.create_bucket(Bucket="models", CreateBucketConfiguration=where)
    s3.put_object(Bucket="models", Key="m/model.joblib", Body=b"1")
    s3.put_object(Bucket="models", Key="m.tar.gz", Body=b"1")
    names = set()
    for uri in ("s3://models/m/", "s3://models/m/model.joblib", "s3://models/m.tar.gz"):
        steps = shell("plan", "--json", "--model", uri).json["plan"]
        (model,) = [s["arguments"] for s in steps if s.get("operation") == "create_model"]
        names.add(model["ModelName"])
        assert uri in json.dumps(model)
    s3.put_object(Bucket="models", Key="m.tar.gz", Body=b"2")
    changed = shell("plan", "--json", "--model", "s3://models/m.tar.gz").out

    assert len(names) == 3
    assert not [name for name in names if name in changed]
    assert "there is no s3://models/x.tar.gz" in refused(shell, "--model", "s3://models/x.tar.gz")


def test_what_is_not_used_need_not_be_permitted(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image)
    for operation in ("DescribeScalableTargets", "DescribeScalingPolicies", "DescribeAlarms",
                      "GetProducts", "ListServiceQuotas", "GetRole"):  # fmt: skip
        moto.fault(operation, "AccessDeniedException", f"not authorized: {operation}", times=99)

    ran = shell.change()

    assert "unknown  role: " in ran.err
    assert "not permitted: not authorized: DescribeScal" in shell(
        "autoscale", "--max", "2", "--target", "9", code=1).err  # fmt: skip
