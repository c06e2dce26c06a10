"""Scheduled scaling: what is planned, what the local cloud does at a time, and what stays."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from deployment import plan
from deployment.settings import Settings
from deployment.state import State
from deployment.step import Call
from local_test.cloud import schedules
from local_test.cloud.services import Services
from local_test.cloud.speed import Speed
from tests.deployment.conftest import REGION, Moto, Shell, make_image, make_role, settings_file
from tests.deployment.test_plan import fits, target

NIGHT = '[scaling]\nmax = 4\ntarget = 9\n[scaling.schedules.night]\nwhen = "{when}"\nmax = 2\n'
RESOURCE = {
    "ServiceNamespace": "sagemaker", "ResourceId": "endpoint/wine/variant/AllTraffic",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}  # fmt: skip


@pytest.fixture
def image(moto: Moto) -> str:
    make_role(moto)
    return make_image(moto)


def scheduled(moto: Moto) -> dict[str, Mapping[str, Any]]:
    found = moto.client("application-autoscaling").describe_scheduled_actions(
        ServiceNamespace="sagemaker"
    )
    return {one["ScheduledActionName"]: one for one in found["ScheduledActions"]}


def test_a_schedule_is_set_changed_kept_and_taken_away(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image, NIGHT.format(when="cron(0 20 * * ? *)"))
    shell.change()
    found = scheduled(moto)["wine-schedule-night"]
    assert found["Schedule"] == "cron(0 20 * * ? *)"
    assert found["ScalableTargetAction"] == {"MaxCapacity": 2}
    assert "nothing to change" in shell.change().out

    scaling = moto.client("application-autoscaling")
    scaling.put_scheduled_action(**RESOURCE, ScheduledActionName="theirs", Schedule="rate(9 days)",
                                 ScalableTargetAction={"MinCapacity": 1})  # fmt: skip
    # What a schedule wrote into the target is no difference.
    scaling.register_scalable_target(**RESOURCE, MinCapacity=1, MaxCapacity=2)
    assert "nothing to change" in shell.change().out
    settings_file(folder, image, NIGHT.format(when="cron(0 22 * * ? *)"))
    assert "0 to add, 1 to change, 0 to remove" in shell("plan").out
    shell.change()
    assert scheduled(moto)["wine-schedule-night"]["Schedule"] == "cron(0 22 * * ? *)"

    settings_file(folder, image, "[scaling]\nmax = 4\ntarget = 9\n")
    shell.change()
    assert list(scheduled(moto)) == ["theirs"]
    settings_file(folder, image)
    assert "wine-target-tracking, theirs" in " ".join(shell("plan").err.split())
    shell.change("autoscale", "--off")
    assert scheduled(moto) == {}


def test_another_instance_type_puts_the_schedule_back(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    settings_file(folder, image, NIGHT.format(when="rate(9 days)"))
    shell.change()

    shell.change("--instance-type", "ml.c5.large")

    assert list(scheduled(moto)) == ["wine-schedule-night"]


@pytest.mark.parametrize("mode", ["instance", "async"])
def test_the_calls_of_schedules_fit_the_service(mode: str) -> None:
    more: dict[str, Any] = {"async": {"output": "s3://b/o"}} if mode == "async" else {}
    night = {"when": "at(2026-12-24T18:00:00)", "timezone": "Europe/Zurich", "min": 2, "max": 3}
    wanted = target(scaling={"max": 4, "target": 1, "schedules": {"night": night}}, **more)

    planned = plan.deploy(wanted, State())

    (call,) = [step for step in planned.steps
               if isinstance(step, Call) and step.operation == "put_scheduled_action"]  # fmt: skip
    fits(call)
    assert call.arguments["Timezone"] == "Europe/Zurich"


@pytest.mark.parametrize("when", ["cron(0 20 * *)", "rate(1 week)", "at(noon)", "daily"])
def test_a_schedule_that_aws_would_refuse_is_refused_before_any_call(when: str) -> None:
    with pytest.raises(ValueError, match="when"):
        Settings.model_validate({
            "name": "wine", "scaling": {"max": 3, "target": 1, "schedules": {"a": {"when": when}}}
        })  # fmt: skip


@pytest.mark.parametrize(
    ("schedule", "bounds"),
    [
        ("rate(1 minute)", (3, 4)),
        ("rate(3 days)", (1, 4)),
        ("at({soon:%Y-%m-%dT%H:%M:%S})", (3, 4)),
        ("at(2001-01-01T00:00:00)", (1, 4)),
        ("cron({soon.minute} {soon.hour} * * ? *)", (3, 4)),
        ("cron({soon.minute} {soon.hour} * * ? 1999)", (1, 4)),
    ],
)
def test_a_schedule_that_is_due_gives_the_target_its_bounds(
    schedule: str, bounds: tuple[int, int]
) -> None:
    now = datetime.now(UTC)
    times = iter((now, now + timedelta(minutes=50)))
    with mock_aws():
        scaling = boto3.client(
            "application-autoscaling", REGION, aws_access_key_id="x", aws_secret_access_key="x"
        )
        scaling.register_scalable_target(**RESOURCE, MinCapacity=1, MaxCapacity=4)
        scaling.put_scheduled_action(
            **RESOURCE, ScheduledActionName="a", ScalableTargetAction={"MinCapacity": 3},
            Schedule=schedule.format(soon=now + timedelta(minutes=20)),
        )  # fmt: skip
        schedules.Schedules(Services(REGION), Speed(), lambda: next(times)).look()
        (found,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")[
            "ScalableTargets"]  # fmt: skip

    assert (found["MinCapacity"], found["MaxCapacity"]) == bounds


@pytest.mark.parametrize(
    ("expression", "at", "due"),
    [
        ("0 20 * * ? *", "2026-11-29T20:00", True),
        ("0 20 * * ? *", "2026-11-29T20:01", False),
        ("0/15 * * * ? *", "2026-11-29T07:45", True),
        ("0 8 ? * MON-FRI *", "2026-11-30T08:00", True),  # a Monday
        ("0 8 ? * MON-FRI *", "2026-11-29T08:00", False),
        ("0 8 ? * 1 *", "2026-11-29T08:00", True),  # Sunday is the first day
        ("5,35 0 1 JAN,JUL ? 2026-2027", "2027-07-01T00:35", True),
        ("5,35 0 1 JAN,JUL ? 2026-2027", "2028-07-01T00:35", False),
    ],
)
def test_cron_is_read_as_aws_reads_it(expression: str, at: str, due: bool) -> None:
    assert schedules.cron(expression)(datetime.fromisoformat(at)) is due


@pytest.mark.parametrize(
    ("schedule", "code"),
    [("cron(61 * * * ? *)", "ValidationException"), ("cron(0 8 L * ? *)", "NotModelled"),
     ("cron(0 8 ? * 6#3 *)", "NotModelled"), ("rate(soon)", "ValidationException")],
)  # fmt: skip
def test_the_cloud_refuses_a_schedule_that_it_cannot_keep(
    schedule: str, code: str, moto: Moto
) -> None:
    scaling = moto.client("application-autoscaling")
    with pytest.raises(ClientError, match=code):
        scaling.put_scheduled_action(
            **RESOURCE, ScheduledActionName="a", Schedule=schedule,
            ScalableTargetAction={"MinCapacity": 1},
        )  # fmt: skip
