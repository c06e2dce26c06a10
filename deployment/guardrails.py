"""UpdateEndpoint's DeploymentConfig: how traffic moves to a new fleet, and what moves it back.

Pure. The facts are in the contract, section 7.4.
"""

from __future__ import annotations

from collections.abc import Mapping

from deployment.combinations import watched
from deployment.documents import Document, alarms, given
from deployment.settings import Settings
from deployment.tables import Update


def deployment_config(settings: Settings) -> Document | None:
    """Return UpdateEndpoint's DeploymentConfig, or None for SageMaker's own default."""
    update = settings.update
    if update == Update():
        return None
    policy = _rolling if update.policy == "rolling" else _blue_green
    document = policy(update)
    if watched(settings) and update.auto_rollback is not False:
        names = [*update.alarms, *alarms(settings)]
        document["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in names]}
    return document


def _percent(value: int) -> Document:
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def _rolling(update: Update) -> Document:
    return {
        "RollingUpdatePolicy": given(
            MaximumBatchSize=_percent(update.percent),
            WaitIntervalInSeconds=update.wait_seconds,
            MaximumExecutionTimeoutInSeconds=update.max_seconds,
        )
    }


def _blue_green(update: Update) -> Document:
    routing: Mapping[str, Document] = {
        "all-at-once": {"Type": "ALL_AT_ONCE"},
        "canary": {"Type": "CANARY", "CanarySize": _percent(update.percent)},
        "linear": {"Type": "LINEAR", "LinearStepSize": _percent(update.percent)},
    }
    return {
        "BlueGreenUpdatePolicy": given(
            TrafficRoutingConfiguration=routing[update.policy]
            | {"WaitIntervalInSeconds": update.wait_seconds},
            TerminationWaitInSeconds=update.termination_seconds,
            MaximumExecutionTimeoutInSeconds=update.max_seconds,
        )
    }
