"""The plan is data: every call fits botocore's service model; the same state plans nothing."""

from __future__ import annotations

import ast
import dataclasses
import functools
import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from botocore.validate import ParamValidator

from deployment import batch, combinations, documents, plan, policies, scaling, supplies
from deployment.errors import Refused
from deployment.package import Package
from deployment.settings import Settings
from deployment.state import OWNER_TAG, VARIANT, Config, Endpoint, Scaling, Source, State, Target
from deployment.step import Call, Plan, Wait
from local_test.cloud import shapes
from local_test.cloud.errors import ApiError
from tests.deployment.conftest import REGION, ROLE, ROOT

IMAGE = f"123456789012.dkr.ecr.{REGION}.amazonaws.com/skserve@sha256:{'a' * 64}"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEPLOYMENT = ROOT / "deployment"

MODES: dict[str, dict[str, Any]] = {
    "instance": {"instance": {"count": 2, "volume_gb": 20}},
    "serverless": {"serverless": {"provisioned": 2}},
    "async": {"instance": {"count": 2}, "async": {
        "output": "s3://b/out", "failure": "s3://b/bad", "concurrency": 4,
        "success_topic": "arn:aws:sns:eu-west-1:123456789012:good",
        "error_topic": "arn:aws:sns:eu-west-1:123456789012:bad"}},
}  # fmt: skip
POLICIES: dict[str, dict[str, Any]] = {
    "default": {},
    "all-at-once": {"alarms": ["x"], "termination_seconds": 60},
    "canary": {"percent": 10, "error_rate": 0.1},
    "linear": {"percent": 20, "latency_ms": 200, "max_seconds": 3600},
    "rolling": {"percent": 20, "alarms": ["x"]},
}
SCALING: dict[str, dict[str, Any]] = {
    "instance": {"max": 4, "target": 100}, "async": {"min": 0, "max": 4, "target": 5},
    "serverless": {"max": 4, "target": 0.7},
}  # fmt: skip
EXTRAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "vpc": {"subnets": ["subnet-1"], "security_groups": ["sg-1"]},
        "kms": {"volume": "key-1", "output": "key-2", "bucket": "key-3"},
        "tags": {"team": "wine"},
        "verify": True,
        "environment": {"SKSERVE_METHOD": "predict_proba"},
        "capture": {"destination": "s3://b/captured", "percent": 10},
        "startup": {"download_seconds": 600, "health_seconds": 600},
        "smoke": {"body": "1,2"},
    },
    "shadow": {"shadow": {"model": "other.joblib", "percent": 25}},
}


def target(**more: Any) -> Target:
    given = {"name": "wine", "model": "m.joblib", "image": IMAGE, "role": "skserve"} | more
    settings = Settings.model_validate(given)
    packed = Package(Path("model.tar.gz"), "d" * 64, "e" * 64, 100, ("model.joblib",))
    source = Source("s3://bucket/skserve/wine/d/model.tar.gz", "archive", "d" * 64, packed)
    shadow = dataclasses.replace(source, uri="s3://bucket/skserve/wine/e/model.tar.gz")
    return Target(
        settings, "123456789012", REGION, ROLE, "bucket", IMAGE, source,
        combinations.isolated(settings, ""), IMAGE, shadow if settings.shadow else None,
    )  # fmt: skip


def planned_names(planned: Plan) -> tuple[str, tuple[str, ...]]:
    """Return the config and the models that a plan makes."""
    calls = [step for step in planned.steps if isinstance(step, Call)]
    models = [c.arguments["ModelName"] for c in calls if c.operation == "create_model"]
    return planned.config, tuple(models)


def after(what: Target, planned: Plan, before: State | None = None, age: int = 0) -> State:
    """Return the state that a plan leaves behind."""
    config, models = planned_names(planned)
    kind = what.settings.instance_type or "serverless"
    tags = {tag["Key"]: tag["Value"] for tag in supplies.tags(what.settings)}
    variants = {VARIANT: kind} | ({"Shadow": kind} if what.settings.shadow else {})
    made = Config(config, NOW - timedelta(days=age), models, variants)
    arn = f"arn:aws:sagemaker:{REGION}:123456789012:endpoint/wine"
    scalings: tuple[Scaling, ...] = ()
    if what.settings.scaling:
        mode, wanted = what.settings.mode, what.settings.scaling
        scalings = (Scaling(scaling.scalable_target("wine", mode, wanted),
                            (scaling.scaling_policy("wine", mode, wanted),)),)  # fmt: skip
    sources = [source for source in (what.source, what.shadow_source) if source]
    return State(
        bucket_exists=True, uploaded=frozenset(source.uri for source in sources),
        endpoint=Endpoint("wine", arn, "InService", config, tags=tags), current=made,
        configs=(made, *(before.configs if before else ())),
        models=(*models, *(before.models if before else ())), scaling=scalings,
        alarms=documents.alarms(what.settings),
    )  # fmt: skip


@functools.cache
def shape_of(service: str, operation: str) -> Any:
    """Return the shape of an operation's arguments."""
    model = botocore.session.get_session().get_service_model(service)
    (name,) = [name for name in model.operation_names if xform_name(name) == operation]
    return model.operation_model(name).input_shape


def fits(call: Call) -> None:
    """Check a call against botocore's model: names of operations and parameters, types, ranges."""
    shape = shape_of(call.service, call.operation)
    body = {"Body": b"x"} if call.file else {}
    report = ParamValidator().validate({**call.arguments, **body}, shape)
    assert not report.has_errors(), f"{call.operation}: {report.generate_report()}"
    _check(call)
    if call.undo:
        fits(call.undo)


def _check(call: Call) -> None:
    """Check what botocore leaves to the service: enumerations, patterns and sizes of texts."""
    model = shapes.service_model(call.service)
    (name,) = [name for name in model.operation_names if xform_name(name) == call.operation]
    body = {"Body": b"x"} if call.file else {}
    try:
        shapes.check(call.service, name, {**call.arguments, **body})
    except ApiError as error:
        raise AssertionError(f"{call.operation}: {error}") from error


ALL = [
    pytest.param(mode, policy, extra, id=f"{mode}-{policy}-{extra}")
    for mode, policy, extra in itertools.product(MODES, POLICIES, EXTRAS)
    if not (mode == "serverless" and (extra != "plain" or policy == "rolling"))
    if not (extra == "shadow" and policy == "rolling")
]


@pytest.mark.parametrize(("mode", "policy", "extra"), ALL)
def test_every_call_of_every_combination_fits_the_service_model(
    mode: str, policy: str, extra: str
) -> None:
    update = {"policy": "all-at-once" if policy == "default" else policy, **POLICIES[policy]}
    more = MODES[mode] | EXTRAS[extra] | {"scaling": SCALING[mode]}
    more |= {"update": update} if policy != "default" else {}
    wanted = target(**more)
    combinations.check(wanted.settings)

    created = plan.deploy(wanted, State())
    serving = after(wanted, created)
    other = target(**more | {"choose": "b.joblib", "keep": 1})
    kind = {"serverless": {"memory_mb": 4096, "provisioned": 2}} if mode == "serverless" else {
        "instance": {"count": 2, "type": "ml.c5.large"}}  # fmt: skip
    bigger = target(**more | kind)
    failed = dataclasses.replace(serving.endpoint or Endpoint("", "", "", ""), status="Failed")
    states = [
        created,
        plan.deploy(other, serving),
        plan.deploy(bigger, serving),
        plan.deploy(other, dataclasses.replace(serving, endpoint=failed)),
        plan.autoscale(wanted.settings, dataclasses.replace(serving, scaling=())),
        plan.autoscale(wanted.settings.model_copy(update={"scaling": None}), serving),
        plan.delete("wine", serving),
    ]
    newer = after(other, states[1], serving)
    states.append(plan.rollback(other.settings, dataclasses.replace(
        newer, configs=(newer.configs[0], _older(newer.configs[1])))))  # fmt: skip
    for planned in states:
        assert planned.steps
        for step in (*planned.steps, *planned.restore):
            if isinstance(step, Call):
                fits(step)


def _older(config: Config) -> Config:
    return dataclasses.replace(config, created=NOW - timedelta(days=9))


def test_a_misspelt_parameter_would_fail() -> None:
    with pytest.raises(AssertionError, match="EndpointNmae"):
        fits(Call("sagemaker", "delete_endpoint", {"EndpointNmae": "x"}, ""))
    size = {"Type": "CAPACITY_PERCENTAGE", "Value": 5}
    rolling = {"MaximumBatchSize": size, "WaitIntervalInSeconds": 0}
    arguments = {"EndpointName": "x", "EndpointConfigName": "y",
                 "DeploymentConfig": {"RollingUpdatePolicy": rolling}}  # fmt: skip
    with pytest.raises(AssertionError, match="CAPACITY_PERCENTAGE"):
        fits(Call("sagemaker", "update_endpoint", arguments, ""))


@pytest.mark.parametrize("mode", MODES)
def test_the_same_input_plans_nothing(mode: str) -> None:
    wanted = target(**MODES[mode], scaling=SCALING[mode], smoke={"body": "1"},
                    update={"error_rate": 0.1})  # fmt: skip
    created = plan.deploy(wanted, State())

    again = plan.deploy(wanted, after(wanted, created))

    assert again.steps == ()
    assert again.config == created.config


def test_defaults_that_aws_adds_to_its_answer_are_no_change() -> None:
    wanted = target(scaling=SCALING["instance"])
    serving = after(wanted, plan.deploy(wanted, State()))
    found = json.loads(json.dumps(dataclasses.asdict(serving.scaling[0])))
    found["policies"][0]["TargetTrackingScalingPolicyConfiguration"]["DisableScaleIn"] = False
    told = Scaling(found["target"], tuple(found["policies"]))

    assert plan.deploy(wanted, dataclasses.replace(serving, scaling=(told,))).steps == ()


CHANGES: list[dict[str, Any]] = [
    {"instance": {"type": "ml.c5.large"}}, {"instance": {"count": 3}}, {"environment": {"A": "1"}},
    {"choose": "b.joblib"}, {"network_isolation": False}, {"kms": {"volume": "k"}},
    {"capture": {"destination": "s3://b/c"}}, {"startup": {"health_seconds": 90}},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_changed_input_makes_a_new_config_and_edits_nothing(change: dict[str, Any]) -> None:
    before = target()
    created = plan.deploy(before, State())

    changed = plan.deploy(target(**change), after(before, created))

    operations = [step.operation for step in changed.steps if isinstance(step, Call)]
    assert changed.config != created.config
    assert "update_endpoint" in operations
    assert not [name for name in operations if name.startswith("delete")]


def test_the_steps_of_a_first_deployment() -> None:
    planned = plan.deploy(target(smoke={"body": "1"}, scaling=SCALING["instance"]), State())

    assert [step.until if isinstance(step, Wait) else step.operation for step in planned.steps] == [
        "create_bucket", "put_object", "create_model", "create_endpoint_config", "create_endpoint",
        "in service", "register_scalable_target", "put_scaling_policy", "invoke_endpoint",
    ]  # fmt: skip


def test_scaling_is_kept_through_an_update_and_moved_around_a_change_of_type() -> None:
    before = target(scaling=SCALING["instance"])
    serving = after(before, plan.deploy(before, State()))

    kept = plan.deploy(target(scaling=SCALING["instance"], choose="b"), serving)
    moved = plan.deploy(target(scaling=SCALING["instance"], instance={"type": "ml.c5.large"}),
                        serving)  # fmt: skip

    (update,) = [s for s in kept.steps if isinstance(s, Call) and s.operation == "update_endpoint"]
    assert update.arguments["RetainAllVariantProperties"] is True
    assert kept.restore == ()
    names = [step.operation for step in moved.steps if isinstance(step, Call)]
    around = ["delete_scaling_policy", "deregister_scalable_target", "update_endpoint",
              "register_scalable_target", "put_scaling_policy"]  # fmt: skip
    assert [name for name in names if name in around] == around
    assert [call.operation for call in moved.restore] == around[-2:]


def test_old_configs_are_pruned_and_what_serves_is_kept() -> None:
    wanted = target(keep=2)
    state, first = State(), ""
    for number in range(5):
        wanted = target(keep=2, choose=f"{number}.joblib")
        planned = plan.deploy(wanted, state)
        gone = [s.arguments["EndpointConfigName"] for s in planned.steps
                if isinstance(s, Call) and s.operation == "delete_endpoint_config"]  # fmt: skip
        assert not state.endpoint or state.endpoint.config not in gone
        kept = tuple(config for config in state.configs if config.name not in gone)
        state = after(wanted, planned, dataclasses.replace(state, configs=kept), age=10 - number)
        first = first or planned.config
        assert len(state.configs) <= 3
    assert first not in [config.name for config in state.configs]


def test_rollback_takes_the_newest_that_is_older() -> None:
    configs = [Config(f"wine-{n}", NOW - timedelta(days=n), (f"m{n}",), {VARIANT: "ml.m5.large"})
               for n in range(4)]  # fmt: skip
    endpoint = Endpoint("wine", "arn", "InService", "wine-1")
    state = State(endpoint=endpoint, current=configs[1], configs=tuple(configs))

    assert plan.rollback(target().settings, state).config == "wine-2"
    oldest = dataclasses.replace(state, current=configs[3])
    with pytest.raises(Refused, match="no config of wine older than wine-3"):
        plan.rollback(target().settings, oldest)


def test_an_endpoint_of_another_owner_is_left_alone() -> None:
    wanted = target()
    serving = after(wanted, plan.deploy(wanted, State()))
    assert serving.endpoint
    foreign = dataclasses.replace(
        serving, endpoint=dataclasses.replace(serving.endpoint, tags={OWNER_TAG: "other"})
    )

    with pytest.raises(Refused, match="not made by this tool"):
        plan.deploy(target(choose="b"), foreign)
    with pytest.raises(Refused, match="not made by this tool"):
        plan.delete("wine", foreign)
    adopted = plan.deploy(target(choose="b"), foreign, adopt=True)
    assert "add_tags" in [step.operation for step in adopted.steps if isinstance(step, Call)]


def test_instances_never_become_serverless() -> None:
    wanted = target()
    serving = after(wanted, plan.deploy(wanted, State()))

    with pytest.raises(Refused, match="cannot become serverless"):
        plan.deploy(target(serverless={}), serving)


def test_names_fit_even_for_the_longest() -> None:
    planned = plan.deploy(target(name="w" * 63), State())
    config, models = planned_names(planned)

    assert len(config) <= 63
    assert all(len(name) <= 63 for name in models)


JOBS = [
    (batch.Job("s3://b/in.csv"), ""),
    (batch.Job("s3://b/in.jsonl", join=True, payload_mb=10, concurrent=5), ""),
    (batch.Job("s3://b/in.npy", accept="application/json"), ""),
    (batch.Job("s3://b/in/"), "type of the input"),
    (batch.Job("s3://b/in.csv", instance_type="ml.c7g.large"), "no Graviton"),
    (batch.Job("s3://b/in.npy", join=True), "joining needs"),
    (batch.Job("s3://b/in.csv", accept="application/json", join=True), "on one line"),
    (batch.Job("s3://b/in.csv", accept="application/json"), "must be lines too"),
    (batch.Job("s3://b/in.csv", payload_mb=60, concurrent=2), "120 MB"),
]


@pytest.mark.parametrize(("job", "refusal"), JOBS)
def test_the_parts_of_a_transform_fit_each_other_or_are_refused(
    job: batch.Job, refusal: str
) -> None:
    wanted = target(kms={"output": "k", "volume": "v"})
    if refusal:
        with pytest.raises(Refused, match=refusal):
            batch.request(wanted, job, NOW)
        return
    document, _ = batch.request(wanted, job, NOW)
    fits(Call("sagemaker", "create_transform_job", document | {"ModelName": "m"}, ""))
    assert document["ModelClientConfig"]["InvocationsTimeoutInSeconds"] == 3600
    split = document["TransformInput"]["SplitType"]
    assert split == document["TransformOutput"]["AssembleWith"]


@pytest.mark.parametrize("prefix", ["", "skserve", "/a/b/"])
def test_a_transform_writes_where_the_role_may(prefix: str) -> None:
    wanted = target(prefix=prefix)
    wanted = dataclasses.replace(wanted, bucket=wanted.settings.bucket_in(REGION, "1" * 12))
    document, _ = batch.request(wanted, batch.Job("s3://b/in.csv"), NOW)
    found = policies.permissions(wanted.settings, "aws", REGION, "1" * 12)
    (allowed,) = [s["Resource"] for s in found["Statement"] if s["Sid"] == "Write"]
    output = document["TransformOutput"]["S3OutputPath"].replace("s3://", "arn:aws:s3:::")

    assert any(output.startswith(one.removesuffix("*")) for one in allowed)


def test_the_role_may_do_what_is_needed_and_nothing_unnamed() -> None:
    settings = target(**EXTRAS["everything"], **MODES["async"]).settings
    settings = settings.model_copy(update={"kms": settings.kms.model_copy(
        update={"volume": "arn:aws:kms:eu-west-1:123456789012:key/k"})})  # fmt: skip
    found = policies.permissions(settings, "aws", REGION, "123456789012")
    starred = {s["Sid"] for s in found["Statement"] if "*" in s["Resource"]}

    assert starred == {"Metrics", "Login", "Vpc"}
    actions = {action for s in found["Statement"] for action in s["Action"]}
    assert not [action for action in actions if action.endswith(":*")]
    text = json.dumps(found)
    assert "arn:aws:s3:::b/out/*" in text
    assert "repository/skserve" in text
    created = policies.create(settings, "skserve", (policies.trust("aws", "1" * 12), found), False)
    for step in created.steps:
        assert isinstance(step, Call)
        fits(step)


PURE = (
    *("plan", "supplies", "documents", "scaling", "combinations", "settings", "tables", "state"),
    *(
        "step",
        "history",
        "difference",
        "update",
        "metrics",
        "guardrails",
        "grants",
        "policies",
        "answers",
    ),
)


@pytest.mark.parametrize("module", sorted(path.stem for path in DEPLOYMENT.glob("*.py")))
def test_boto3_has_one_door_and_the_plan_is_pure(module: str) -> None:
    tree = ast.parse((DEPLOYMENT / f"{module}.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
                for alias in node.names}  # fmt: skip
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.split(".")[0] for name in imported}

    assert module == "aws" or not roots & {"boto3", "botocore"}
    assert module == "console" or "rich" not in roots
    if module in PURE:
        assert not {name.removeprefix("deployment.") for name in imported} & {"aws", "survey"}
        assert not roots & {"time", "os", "urllib", "random"}
