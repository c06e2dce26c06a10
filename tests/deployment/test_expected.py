"""What users expect beside a deployment that works: reasons, metrics, variants, calls in full."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import deploy
from deployment import difference, metrics, plan
from deployment.state import State
from deployment.step import Call
from tests.deployment.conftest import Moto, Shell, make_image, make_role, settings_file
from tests.deployment.test_plan import (
    EXTRAS,
    MODES,
    SCALING,
    after,
    fits,
    planned_names,
    target,
)


@pytest.fixture
def image(moto: Moto) -> str:
    make_role(moto)
    return make_image(moto, labels={"skserve.scikit-learn": "1.9"})


# What version 0.1.0 planned for the same settings: another name would be an update of all that run.
NAMES = {
    "instance-plain": ("wine-e6b991bb174e", ("wine-ccdacc965757",)),
    "instance-everything": ("wine-4f85cd0b57e5", ("wine-0ef83dcaed4f",)),
    "instance-shadow": ("wine-5a9e652fe490", ("wine-ccdacc965757", "wine-f647a23d1341")),
    "serverless-plain": ("wine-e48d063f223f", ("wine-6efda79cebcb",)),
    "async-plain": ("wine-019569369508", ("wine-e02fd1d19847",)),
    "async-everything": ("wine-894758ae1dcb", ("wine-673f46123fb6",)),
    "async-shadow": ("wine-56c43cdd58ee", ("wine-e02fd1d19847", "wine-06810c2c4cb5")),
}


@pytest.mark.parametrize("case", NAMES)
def test_settings_that_nothing_changed_keep_their_names(case: str) -> None:
    mode, extra = case.split("-")
    older = {"scaling": SCALING[mode], "verify": False}  # which 0.1.0 did not know
    wanted = target(**MODES[mode] | EXTRAS[extra] | older)
    # An endpoint keeps the types that it was made with; those of 0.1.0 had one with a parameter.
    wanted = replace(wanted, captured=("text/csv", "text/csv; charset=utf-8"))

    assert planned_names(plan.deploy(wanted, State())) == NAMES[case]


MORE: list[dict[str, Any]] = [
    {"metrics": {"seconds": 30, "rejected_per_second": 1, "queue_seconds": 0.5},
     "instance": {"routing": "least-outstanding"}},
    {"metrics": {"detailed": False}, "instance": {"routing": "random"}},
    {"scaling": {"max": 3, "target": 9, "disable_scale_in": True}},
    {"vpc": EXTRAS["everything"]["vpc"], "image_credentials": "arn:aws:lambda:r:1:function:f"},
]  # fmt: skip


@pytest.mark.parametrize("more", MORE, ids=lambda more: ",".join(more))
def test_the_calls_of_newer_settings_fit_the_service(more: dict[str, Any]) -> None:
    wanted = target(**more)
    created = plan.deploy(wanted, State())
    for step in created.steps:
        if isinstance(step, Call):
            fits(step)

    made = after(wanted, created)
    alarms = {**made.alarms, **metrics.alarms(wanted.settings)}
    made = State(**{**vars(made), "alarms": alarms})
    assert plan.deploy(wanted, made).steps == ()


def test_an_image_without_a_registry_is_the_newest_of_that_repository(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    def pinned() -> str:
        return str(dict(moto.sent)["CreateModel"]["PrimaryContainer"]["Image"])

    settings_file(folder, "skserve")
    shell.change()
    first = pinned()
    assert first.startswith(image.rpartition(":")[0] + "@sha256:")
    assert "nothing to change" in shell.change().out
    make_image(moto, "2", labels={"skserve.scikit-learn": "1.9"})
    assert "nothing to change" in shell.change("--image", "skserve:1").out
    assert f"Image: {first} -> " in shell("plan").out
    shell.change()
    assert pinned() not in (first, "")

    for named, sentence in (
        (
            "elsewhere",
            "nothing is pushed to 123456789012.dkr.ecr.eu-west-1.amazonaws.com/elsewhere",
        ),
        ("skserve:3", "skserve:3 does not exist"),
        ("docker.io/skserve", "is not in ECR"),
        ("skserve:", "'skserve:' names no image"),
        (f"{image}@sha256:abc", "@sha256:abc' names no image"),
        ("My Wine", "'My Wine' names no image"),
    ):
        assert sentence in shell("plan", "--image", named, code=3).err
    assert (
        "is not in ECR" not in shell("plan", "--name", "other", "--serverless-memory", "2048").err
    )
    allowed = shell("role").json["permissions"]["Statement"]
    (pull,) = [one for one in allowed if "ecr:BatchGetImage" in one["Action"]]
    assert pull["Resource"] == ["arn:aws:ecr:eu-west-1:123456789012:repository/skserve"]


def test_alarms_on_our_own_metrics_quote_names_that_hold_dots() -> None:
    wanted = target(metrics={"rejected_per_second": 1, "queue_seconds": 0.5}).settings

    queries = [alarm["EvaluationCriteria"]["PromQLCriteria"]["Query"]
               for alarm in metrics.alarms(wanted).values()]  # fmt: skip

    assert len(queries) == 2
    assert all('"aws.sagemaker.endpoint.name"="wine"' in query for query in queries)
    assert 'rate({"skserve_rejected_total"' in queries[0]


def test_a_new_endpoint_has_metrics_and_routing_and_keeps_them(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image)
    made = shell.change()
    sent = dict(moto.sent)

    metrics_config = {"EnableDetailedObservability": True, "MetricPublishFrequencyInSeconds": 60}
    assert sent["CreateEndpointConfig"]["MetricsConfig"] == metrics_config
    (variant,) = sent["CreateEndpointConfig"]["ProductionVariants"]
    assert variant["RoutingConfig"] == {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    container = sent["CreateModel"]["PrimaryContainer"]["ContainerMetricsConfig"]
    assert container["MetricsEndpoints"][0]["MetricsEndpointPath"] == "/metrics"
    assert "telemetry: enrichment is Stopped" in made.err
    assert "start-telemetry-enrichment" in made.err
    assert shell("plan", "--json").json["plan"] == []
    # One that an earlier version made: its config has no tag of these defaults.
    sagemaker = moto.client("sagemaker")
    (config,) = sagemaker.list_endpoint_configs()["EndpointConfigs"]
    sagemaker.delete_tags(ResourceArn=config["EndpointConfigArn"], TagKeys=["skserve:defaults"])
    assert "to have them here, write [metrics]" in " ".join(shell("plan").err.split())


def test_variants_share_calls_by_weight(image: str, moto: Moto, shell: Shell, folder: Path) -> None:
    (folder / "b.joblib").write_bytes((folder / "model.joblib").read_bytes().replace(b"1", b"2"))
    settings_file(folder, image, '[variants.b]\nmodel = "b.joblib"\nweight = 0.25\n')
    steps = shell("plan", "--json").json["plan"]
    shell.change()

    (config,) = [step["arguments"] for step in steps
                 if step.get("operation") == "create_endpoint_config"]  # fmt: skip
    shares = {one["VariantName"]: one["InitialVariantWeight"]
              for one in config["ProductionVariants"]}  # fmt: skip
    assert shares == {"AllTraffic": 1.0, "b": 0.25}
    assert len({one["ModelName"] for one in config["ProductionVariants"]}) == 2
    assert shell("plan", "--json").json["plan"] == []
    assert "not both" in shell("plan", "--set", 'shadow.model="b.joblib"', code=3).err


def test_a_plan_says_why_and_how_much(image: str, moto: Moto, shell: Shell, folder: Path) -> None:
    settings_file(folder, image, '[environment]\nA = "1"\n')
    shell.change()

    ran = shell("plan", "--instance-type", "ml.c5.large", "--set", "environment.A=2")

    assert "ProductionVariants[AllTraffic].InstanceType: ml.m5.large -> ml.c5.large\n" in ran.out
    assert "PrimaryContainer.Environment.A: 1 -> 2\n" in ran.out
    assert ran.out.endswith("2 to add, 1 to change, 0 to remove\n")
    assert len(ran.out.split("because of:")[1].splitlines()) == 4
    asked = shell("plan", "--json", "--set", "keep=1", "--count", "2").json
    assert asked["summary"] == {"add": 1, "change": 1, "remove": 0}


def test_no_wait_leaves_the_rest_to_the_next_run(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image, '[scaling]\nmax = 3\ntarget = 9\n[smoke]\nbody = "1"\n')
    moto.next(looks=3)

    left = shell.change("--no-wait")
    assert "under way" in left.out
    assert "RegisterScalableTarget" not in moto.calls
    assert "wine is Creating: that is waited for" in shell("plan").err
    assert "is changing already" in shell.change("--no-wait", code=3).err
    shell.change()

    assert "RegisterScalableTarget" in moto.calls
    assert "InvokeEndpoint" in moto.calls


def test_a_call_carries_what_was_asked_and_goes_where_it_was_asked(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image)
    shell.change()
    (folder / "rows.csv").write_text("1,2\n")

    shell("invoke", "rows.csv", "-o", "answer.csv", "--custom-attributes", "method=predict",
          "--inference-id", "id-1", "--target-variant", "AllTraffic")  # fmt: skip

    assert (folder / "answer.csv").read_bytes() == b"1\n"
    assert moto.headers["X-Amzn-Sagemaker-Custom-Attributes"] == "method=predict"
    assert moto.headers["X-Amzn-Sagemaker-Inference-Id"] == "id-1"
    assert moto.headers["X-Amzn-Sagemaker-Target-Variant"] == "AllTraffic"
    assert "asynchronous" in shell("invoke", "s3://b/rows.csv", code=2).err


def test_filters_reach_the_job(image: str, shell: Shell, folder: Path) -> None:
    settings_file(folder, image)
    (folder / "rows.csv").write_text("1,2\n")
    words = ("transform", "rows.csv", "--join", "--input-filter", "$[1:]", "--output-filter",
             "$[0,-1]", "--dry-run", "--json")  # fmt: skip

    asked = shell(*words).json[-1]["arguments"]

    wanted = {"InputFilter": "$[1:]", "OutputFilter": "$[0,-1]", "JoinSource": "Input"}
    assert asked["DataProcessing"] == wanted
    fits(Call("sagemaker", "create_transform_job", asked, ""))


def test_status_has_the_last_figures(image: str, moto: Moto, shell: Shell, folder: Path) -> None:
    settings_file(folder, image)
    shell.change()
    where = [{"Name": "EndpointName", "Value": "wine"},
             {"Name": "VariantName", "Value": "AllTraffic"}]  # fmt: skip
    moto.client("cloudwatch").put_metric_data(Namespace="AWS/SageMaker", MetricData=[
        {"MetricName": "Invocations", "Dimensions": where, "Value": 7.0},
        {"MetricName": "ModelLatency", "Dimensions": where, "Value": 2500.0}])  # fmt: skip

    found = shell("status", "--json").json

    assert found["last hour"]["calls"] == 7.0
    assert found["last hour"]["latency_ms"] == 2.5
    assert found["console"].endswith("#/endpoints/wine")


@pytest.mark.parametrize("word", ["", *deploy.main.commands])
def test_every_word_has_examples_that_its_help_shows(word: str, shell: Shell) -> None:
    shown = shell(*word.split(), "--help").out

    assert "Examples:" in shown
    for example in deploy.EXAMPLES[word]:
        assert f"python deploy.py {example}".rstrip() in shown
    assert shown.index("--yes") > shown.index("Options") if word != "pack" else True


def test_the_version_is_the_projects(shell: Shell) -> None:
    assert shell("--version").out == f"deploy.py, version {deploy.version(deploy.HERE)}\n"


def test_values_that_aws_adds_are_no_reason() -> None:
    wanted = {"PrimaryContainer": {"Image": "a"}}
    found = json.loads(json.dumps(wanted)) | {"ModelName": "m", "CreationTime": "now"}
    found["PrimaryContainer"]["Mode"] = "SingleModel"

    assert difference.lines(wanted, {}, found, {"EndpointConfigArn": "x"}) == ()
