"""What must not surprise: the ten kinds, each over the command line, against moto's server."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deployment import registry
from tests.deployment.conftest import (
    ACCOUNT,
    REGION,
    ROLE,
    ROOT,
    Moto,
    Shell,
    make_image,
    make_role,
    save_model,
    settings_file,
)
from tests.deployment.test_story import leftovers

BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"
SCALED = "[scaling]\nmin = 1\nmax = 4\ntarget = 100\n"


@pytest.fixture
def image(moto: Moto) -> str:
    make_role(moto)
    return make_image(moto, labels={"skserve.scikit-learn": "1.9"})


def policies_of(moto: Moto, role: str = "skserve") -> dict[str, Any]:
    iam = moto.client("iam")
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    return {
        name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for name in names
    }


def serving_config(moto: Moto) -> str:
    found = moto.client("sagemaker").describe_endpoint(EndpointName="wine")
    return str(found["EndpointConfigName"])


# ---- 1: the role


def test_a_second_endpoint_takes_nothing_from_the_role_of_the_first(
    moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, make_image(moto))
    shell("role", "--create")
    shell("role", "--create", "--name", "iris", "--model", "s3://other/iris.tar.gz")

    allowed = json.dumps(policies_of(moto))
    for needed in ("Endpoints/wine", "Endpoints/iris", "skserve/wine/*", "other/iris.tar.gz",
                   "log-group:/aws/sagemaker/TrainingJobs"):  # fmt: skip
        assert needed in allowed
    assert "skserve/*" not in allowed


def test_a_policy_of_an_earlier_version_is_moved_with_all_that_it_allows(
    moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, make_image(moto))
    shell("role", "--create")
    iam = moto.client("iam")
    old = shell("role", "--name", "iris").json["permissions"]
    old["Statement"].append({"Sid": "Own", "Effect": "Allow", "Action": "s3:GetObject",
                             "Resource": "arn:aws:s3:::by-hand/*"})  # fmt: skip
    iam.put_role_policy(RoleName="skserve", PolicyName="skserve-endpoint",
                        PolicyDocument=json.dumps(old))  # fmt: skip

    shell("role", "--create", "--set", 'access.read=["s3://jobs/in/"]')
    found = policies_of(moto)

    assert sorted(found) == ["skserve-endpoint-iris", "skserve-endpoint-wine"]
    assert found["skserve-endpoint-iris"] == old
    assert "jobs/in/*" in json.dumps(found["skserve-endpoint-wine"])
    kept = shell("role", "--create")  # the file no longer names it
    assert "jobs/in/*" in json.dumps(policies_of(moto))
    assert "--force removes them" in kept.err
    shell("role", "--create", "--force")
    assert "jobs/in/*" not in json.dumps(policies_of(moto))


def test_a_role_made_elsewhere_or_with_a_wrong_trust_is_no_success(
    moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, make_image(moto))
    make_role(moto)

    ran = shell("role", "--create", code=3)

    assert "made elsewhere" in ran.err
    assert policies_of(moto) == {}
    shell("role", "--create", "--adopt")
    assert list(policies_of(moto)) == ["skserve-endpoint-wine"]
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "sts:AssumeRole",
             "Principal": {"Service": "sagemaker.amazonaws.com"}}]}  # fmt: skip
    moto.client("iam").update_assume_role_policy(RoleName="skserve",
                                                 PolicyDocument=json.dumps(trust))  # fmt: skip
    assert "does not let sagemaker.amazonaws.com assume it" in shell("role", "--create", code=3).err
    assert "does not let sagemaker.amazonaws.com assume it" in shell("plan", code=3).err
    shell("role", "--create", "--force")
    assert "trusts SageMaker, and may do what is needed" in shell("plan").err


def test_the_role_has_a_path_tags_and_a_boundary(moto: Moto, shell: Shell, folder: Path) -> None:
    boundary = f"arn:aws:iam::{ACCOUNT}:policy/limit"
    settings_file(folder, "", f'permissions_boundary = "{boundary}"\n[tags]\nteam = "wine"\n',
                  role="team/skserve")  # fmt: skip

    made = shell("role", "--create", "--dry-run", "--json").json[0]["arguments"]

    assert (made["Path"], made["RoleName"]) == ("/team/", "skserve")
    assert made["PermissionsBoundary"] == boundary
    assert {"Key": "team", "Value": "wine"} in made["Tags"]
    # Before there is an image, the repository is the one that build_and_push.sh makes.
    assert f"{ACCOUNT}:repository/skserve" in shell("role").out


def test_preflight_says_what_the_role_lacks(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image)

    assert f"lacks s3:GetObject on arn:aws:s3:::{BUCKET}/skserve/wine/*" in shell("plan").err


# ---- 2 and 4: scaling


def test_a_new_count_is_applied_although_scaling_lives(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image, SCALED)
    shell.change()
    settings_file(folder, image, "[instance]\ncount = 3\n")

    plan = shell("plan")
    shell.change()

    (update,) = [given for name, given in moto.sent if name == "UpdateEndpoint"]
    assert not update["RetainAllVariantProperties"]
    assert "InitialInstanceCount: 1 -> 3" in plan.out
    assert "1 instances run and instance.count is 3" in plan.err


def test_a_count_that_differs_from_what_runs_is_said(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image)
    shell.change()
    moto.client("sagemaker").update_endpoint_weights_and_capacities(
        EndpointName="wine",
        DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}],
    )

    moto.client("sagemaker").get_waiter("endpoint_in_service").wait(
        EndpointName="wine", WaiterConfig={"Delay": 1}
    )

    said = "2 instances run and instance.count is 1"
    assert said in shell("plan").err
    assert said in shell("status").out
    assert shell("plan", "--json").json["plan"] == []


def test_scaling_made_elsewhere_is_left_alone_and_said(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image)
    shell.change()
    scaling = moto.client("application-autoscaling")
    named = {"ServiceNamespace": "sagemaker", "ResourceId": "endpoint/wine/variant/AllTraffic",
             "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}  # fmt: skip
    scaling.register_scalable_target(**named, MinCapacity=1, MaxCapacity=7)
    save_model(folder / "model.joblib", 2.0)

    plan = shell("plan")
    shell.change()

    (found,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert found["MaxCapacity"] == 7
    assert "scaling 1 to 7 (no policy) is not in endpoint.toml and stays" in plan.err
    shell.change("autoscale", "--off")
    assert not scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]


def test_then_deploy_says_what_to_write_or_writes_it(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image, '# mine\n[smoke]\nbody = "1,2"\n', code="code")
    (folder / "code").mkdir()
    (folder / "code" / "inference.py").write_text("def model_fn(where):\n    return 1\n")
    (folder / "wine.csv").write_text("a,class\n1,2\n")
    words = ("train", "--channel", "train=wine.csv", "--hyperparameter", "estimator=x.Y",
             "--then-deploy")  # fmt: skip

    said = shell.change(*words, "--job-name", "wine-1").err
    assert "skserve/wine/train/wine-1/output/model.tar.gz" in said.split("write  model = ")[1]
    text = (folder / "endpoint.toml").read_text()
    assert 'model = "model.joblib"' in text

    shell.change(*words, "--job-name", "wine-2", "--save")
    text = (folder / "endpoint.toml").read_text()
    assert f'model = "s3://{BUCKET}/skserve/wine/train/wine-2/output/model.tar.gz"\n' in text
    assert "# mine\n" in text
    assert shell("plan", "--json").json["plan"] == []


# ---- 3: rollback


def test_a_rollback_never_returns_to_what_was_rolled_back_from(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image)
    first = shell.change("--json").json["config"]
    save_model(folder / "model.joblib", 2.0)
    bad = shell.change("--json").json["config"]
    assert shell.change("rollback", "--json").json["config"] == first
    save_model(folder / "model.joblib", 3.0)
    third = shell.change("--json").json["config"]

    back = shell.change("rollback", "--json")

    assert back.json["config"] == first
    assert f"{bad} is passed over" in back.err
    again = shell.change("rollback", code=3)
    assert f"{bad} failed or was rolled back from" in again.err
    named = shell.change("rollback", bad, "--json")
    assert named.json["config"] == bad
    assert "failed or was rolled back from before" in named.err
    assert third in shell.change("rollback", "wine-nothing", code=3).err


# ---- 5: uploads, and images in use


def test_every_upload_names_the_owner_of_the_default_bucket(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image, '[kms]\nbucket = "key-3"\n')
    (folder / "rows.csv").write_text("1,2\n")

    def uploads(*words: str) -> list[dict[str, Any]]:
        steps = shell(*words, "--dry-run", "--json").json
        steps = steps["plan"] if isinstance(steps, dict) else steps
        return [one["arguments"] for one in steps if one.get("operation") == "put_object"]

    train = ("train", "--channel", "train=rows.csv", "--hyperparameter", "estimator=x.Y")
    for words in (("plan",), ("transform", "rows.csv"), train):
        found = uploads(*words)
        assert {one["ExpectedBucketOwner"] for one in found} == {ACCOUNT}, words
        assert {one["SSEKMSKeyId"] for one in found} == {"key-3"}, words
    settings_file(folder, image, "[models]\n", model="")
    assert {one["ExpectedBucketOwner"] for one in uploads("add-model", "model.joblib")} == {ACCOUNT}
    assert "ExpectedBucketOwner" not in uploads("add-model", "model.joblib", "--bucket", "b")[0]


def test_an_image_that_a_model_is_pinned_to_never_expires(
    moto: Moto, shell: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_log_in", lambda *_: None)  # no Docker is asked here
    ecr = moto.client("ecr")

    def push() -> None:
        """Do what build_and_push.sh --keep 1 does before it builds."""
        words = ["open", "skserve", "1", "--keep", "1"]
        done = CliRunner().invoke(registry.main, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output

    push()
    make_role(moto)
    settings_file(folder, make_image(moto))
    shell.change()
    make_image(moto, "2")

    push()

    (model,) = moto.client("sagemaker").list_models()["Models"]
    found = moto.client("sagemaker").describe_model(ModelName=model["ModelName"])
    digest = found["PrimaryContainer"]["Image"].rpartition("@")[2]
    rules = json.loads(ecr.get_lifecycle_policy(repositoryName="skserve")["lifecyclePolicyText"])
    prefixes = {one["rulePriority"]: one["selection"].get("tagPrefixList", [""])[0]
                for one in rules["rules"]}  # fmt: skip
    listed = ecr.list_images(repositoryName="skserve")["imageIds"]
    tags = [one["imageTag"] for one in listed if one["imageDigest"] == digest]
    first = prefixes[min(prefixes)]
    assert first, "the first rule claims images in use"
    assert any(tag.startswith(first) for tag in tags)
    shell.change("delete", "--yes")
    push()
    tags = [one["imageTag"] for one in ecr.list_images(repositoryName="skserve")["imageIds"]]
    assert sorted(tags) == ["1", "2"]


# ---- 6: MFA

PROFILES = f"""[profile mfa]
role_arn = {ROLE}
source_profile = base
mfa_serial = arn:aws:iam::{ACCOUNT}:mfa/me
region = {REGION}
[profile base]
aws_access_key_id = test
aws_secret_access_key = test
"""


def with_mfa(moto: Moto, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config").write_text(PROFILES)
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    kept = {key: value for key, value in moto.environ.items() if key not in keys}
    return kept | {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": "mfa"}


def test_one_mfa_code_serves_for_all_commands_and_none_is_a_sentence(
    image: str, moto: Moto, folder: Path, tmp_path: Path
) -> None:
    settings_file(folder, image)
    words = [sys.executable, str(ROOT / "deploy.py"), "list", "--json"]
    environ = with_mfa(moto, tmp_path)

    refused = subprocess.run(words, cwd=folder, env=environ, stdin=subprocess.DEVNULL, text=True,
                             capture_output=True, start_new_session=True, check=False)  # fmt: skip
    assert refused.returncode == 1
    assert "MFA code, and there is no terminal" in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr

    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execve(words[0], words, environ)
    shown = b""
    while b"MFA code" not in shown:
        shown += os.read(terminal, 1024)
    os.write(terminal, b"123456\n")
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 1024):
            shown += part
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    again = subprocess.run(words, cwd=folder, env=environ, stdin=subprocess.DEVNULL, text=True,
                           capture_output=True, start_new_session=True, check=False)  # fmt: skip
    assert again.returncode == 0, again.stderr


# ---- 7: the role and time

UNREADABLE = (
    'Could not access model data at s3://x/model.tar.gz. Please ensure that the role "skserve" '
    'exists and that its trust relationship policy allows the action "sts:AssumeRole" for the '
    'service principal "sagemaker.amazonaws.com". Also ensure that the role has "s3:GetObject" '
    "permissions and that the object is located in eu-west-1."
)


def test_a_missing_permission_is_said_at_once(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image)
    moto.fault("CreateModel", "ValidationException", UNREADABLE, times=3)

    start = time.monotonic()
    ran = shell.change(code=1)

    assert "not known everywhere" not in ran.err
    assert "the role skserve lacks s3:GetObject on arn:aws:s3:::" in " ".join(ran.err.split())
    assert "role --create" in ran.err
    assert moto.calls.count("CreateModel") == 1
    assert time.monotonic() - start < 60
    assert leftovers(moto) == []


# ---- 8: the exit codes of a plan


def test_a_plan_exits_as_terraforms_does_and_never_with_0_where_it_would_be_refused(
    image: str, moto: Moto, shell: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file(folder, image)
    assert shell("plan", "--detailed-exitcode", code=2).out
    moto.next(quota=0.0)
    refused = shell("plan", "--json", code=3)
    assert refused.json["refused"] == ["quota: 0 of ml.m5.large are allowed, 1 are asked for"]
    shell("plan", "--detailed-exitcode", code=3)
    shell("plan", "--detailed-exitcode", "--force", code=2)
    moto.next(quota=4.0)
    shell.change()
    assert "nothing to change" in shell("plan", "--detailed-exitcode").out
    assert "nothing to change" in shell("plan").out
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "none"))
    mistyped = shell("plan", "--profile", "prdo", code=2)
    assert mistyped.out == ""
    assert "prdo" in mistyped.err
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "000000000000" in shell("plan").out


# ---- 9: combinations, quota, price


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ('[instance]\ntype = "ml.m5d.large"\n[kms]\nvolume = "k"\n', "kms.volume"),
        ('[shadow]\nmodel = "model.joblib"\ntype = "ml.g5.xlarge"\n[kms]\nvolume = "k"\n',
         "kms.volume: shadow.type"),
    ],
)  # fmt: skip
def test_a_volume_key_for_local_disks_is_refused(
    settings: str, told: str, image: str, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image, settings)
    assert told in shell("plan", code=3).err


def test_images_that_sagemaker_cannot_pull_are_refused(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, "registry.corp/skserve:1")
    assert "through a VPC only" in shell("plan", code=3).err
    vpc = '[vpc]\nsubnets = ["subnet-1"]\nsecurity_groups = ["sg-1"]\n'
    settings_file(folder, "registry.corp/skserve:1", vpc)
    assert '"RepositoryAccessMode": "Vpc"' in shell("plan").out
    settings_file(folder, f"999999999999{image[12:]}", "[serverless]\n")
    foreign = f"999999999999{image[12:].rpartition(':')[0]}@sha256:{'a' * 64}"
    refused = " ".join(shell("plan", "--image", foreign, code=3).err.split())
    assert f"images of its own account, {ACCOUNT}, only" in refused
    settings_file(folder, image, '[kms]\nvolume = "k"\n')
    (folder / "rows.csv").write_text("1,2\n")
    asked = ("transform", "rows.csv", "--transform-instance", "ml.g5.xlarge", "--dry-run")
    assert "AWS refuses a volume key" in " ".join(shell(*asked, code=3).err.split())


def test_a_quota_counts_what_is_in_use_and_both_fleets_of_an_update(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image, "[instance]\ncount = 3\n")
    shell.change()
    save_model(folder / "model.joblib", 2.0)

    refused = " ".join(shell("plan", code=3).err.split())

    assert "4 of ml.m5.large are allowed, 3 are in use, and 3 more are needed at once" in refused
    rolling = ("--policy", "rolling", "--set", "update.percent=30")
    assert "4 of ml.m5.large, 3 in use, 1 more needed now" in shell("plan", *rolling).err


def test_a_price_counts_the_shadow_the_month_and_scaling(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    shadow = '[shadow]\nmodel = "model.joblib"\n[scaling]\nmax = 3\ntarget = 9\n'
    settings_file(folder, image, shadow)

    said = " ".join(shell("plan").err.split())

    assert "shadow 1 x ml.m5.large, each 0.115 USD per hour; 167.90 USD a month" in said
    assert "up to 335.80 USD at scaling.max = 3" in said


def test_at_a_terminal_what_bills_is_asked_for_after_its_price(
    image: str, moto: Moto, folder: Path
) -> None:
    settings_file(folder, image)

    def answered(answer: bytes, *more: str) -> tuple[int, str]:
        leader, follower = pty.openpty()
        os.write(leader, answer)
        words = [sys.executable, str(ROOT / "deploy.py"), "--poll", "0.02", *more]
        done = subprocess.run(words, cwd=folder, env=moto.environ, stdin=follower, text=True,
                              capture_output=True, check=False)  # fmt: skip
        os.close(follower)
        os.close(leader)
        return done.returncode, " ".join(done.stderr.split())

    before = moto.sent
    code, said = answered(b"n\n")
    assert (code, moto.sent) == (2, before)
    assert "83.95 USD a month" in said.split("it bills from then on [y/N]")[0]
    assert "nothing was made" in said
    assert answered(b"y\n")[0] == 0
    code, said = answered(b"n\n", "--yes", "--name", "other")
    assert (code, "[y/N]" in said) == (0, False)


# ---- 10: the rest


def test_a_forbidden_bucket_is_named_with_the_way_out(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image)
    moto.fault(f"HEAD /{BUCKET}", "403", status=403, times=9)

    ran = shell.change(code=1)

    assert BUCKET in ran.err
    assert "--bucket" in ran.err


def test_the_log_of_what_does_not_exist_is_a_failure(shell: Shell, folder: Path) -> None:
    settings_file(folder, "x")

    assert "there is no endpoint wine" in shell("logs", code=1).err


def test_a_folder_and_a_prefix_are_transformed_whole(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image)
    (folder / "rows" / "more").mkdir(parents=True)
    for name in ("rows/a.csv", "rows/more/b.csv"):
        (folder / name).write_text("1,2\n3,4\n")

    done = shell.change("transform", "rows", "--json", "--job-name", "j1")

    assert done.json["lines"] == 4
    home = f"s3://{BUCKET}/skserve/wine/transform/j1/input/"
    assert shell.change("transform", home, "--json", "--job-name", "j2").json["lines"] == 4
    (folder / "rows" / "c.json").write_text("[]")
    assert "end in .csv, .json" in shell("transform", "rows", code=3).err
    assert "nothing below" in shell("transform", f"s3://{BUCKET}/none/", code=3).err


def test_status_asks_for_tags_of_its_own_models_only(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image, name="wine-at-sea")
    shell.change()
    settings_file(folder, image)
    shell.change()
    before = moto.calls.count("ListTags")

    shell("status")

    # The endpoint, its config and its model.
    assert moto.calls.count("ListTags") - before == 3


def test_a_regional_fault_of_an_asynchronous_call_says_what_may_be_the_cause(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    far = {"LocationConstraint": "us-west-2"}
    moto.client("s3", "us-west-2").create_bucket(Bucket="far", CreateBucketConfiguration=far)
    settings_file(folder, image, '[async]\noutput = "s3://far/out"\n')

    assert "far is in us-west-2, the endpoint in eu-west-1" in shell("plan", code=3).err
    moto.fault(
        "POST /endpoints/wine/async-invocations", "InternalFailure", "x", status=500, times=9
    )
    said = " ".join(shell("invoke", "--data", "1", code=1).err.split())
    assert "bucket of [async] output is in another region" in said
