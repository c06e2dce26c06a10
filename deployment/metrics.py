"""What is asked of SageMaker about metrics: which it scrapes, and alarms on our own. Pure.

The facts are in the contract, section 1.13. The container's own metrics are kept in CloudWatch's
OpenTelemetry store, which answers PromQL alone, so alarms on them are PromQL. The names of AWS's
labels hold dots: unless they are quoted, a query is valid and finds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployment.settings import Settings

Document = dict[str, Any]
_ENDPOINT = "aws.sagemaker.endpoint.name"


def config(settings: Settings) -> Document:
    """Return the MetricsConfig of the endpoint config, as a part of it."""
    wanted = settings.metrics
    if wanted is None:
        return {}
    return {
        "MetricsConfig": {
            "EnableDetailedObservability": wanted.detailed,
            "MetricPublishFrequencyInSeconds": wanted.seconds,
        }
    }


def container(settings: Settings) -> Document:
    """Return the ContainerMetricsConfig of a container, as a part of it.

    AWS's pages disagree whether the path is found by itself, so it is always named.
    """
    wanted = settings.metrics
    if wanted is None or not wanted.detailed:
        return {}
    place = {
        "MetricsEndpointPath": wanted.path,
        "MetricPublishFrequencyInSeconds": wanted.seconds,
    }
    return {"ContainerMetricsConfig": {"MetricsEndpoints": [place]}}


def series(name: str, endpoint: str, **labels: str) -> str:
    """Return a PromQL selector whose name and labels are quoted."""
    wanted = {_ENDPOINT: endpoint, **labels}
    return "{" + ", ".join([f'"{name}"', *(f'"{k}"="{v}"' for k, v in wanted.items())]) + "}"


def alarms(settings: Settings) -> Mapping[str, Document]:
    """Return PutMetricAlarm by alarm name, for the thresholds that the settings name.

    They are watched by people. A rollback needs alarms on AWS's own metrics: `documents.alarms`.
    """
    wanted, name = settings.metrics, settings.name
    if wanted is None:
        return {}
    rejected = series("skserve_rejected_total", name)
    queue = series("skserve_request_seconds_bucket", name, stage="queue")
    waits = f"histogram_quantile(0.99, sum by (le) (rate({queue}[5m])))"
    queries = {
        f"{name}-rejected": (f"sum(rate({rejected}[5m]))", wanted.rejected_per_second),
        f"{name}-queue": (waits, wanted.queue_seconds),
    }
    return {
        alarm: {
            "AlarmName": alarm,
            "AlarmDescription": f"made by skserve for {name}",
            "EvaluationCriteria": {
                "PromQLCriteria": {
                    "Query": f"{query} > {threshold:g}",
                    "PendingPeriod": 60,
                    "RecoveryPeriod": 300,
                }
            },
            "EvaluationInterval": wanted.seconds,
        }
        for alarm, (query, threshold) in queries.items()
        if threshold is not None
    }
