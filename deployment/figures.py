"""The last figures of an endpoint: calls, errors and latencies, as CloudWatch counted them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from deployment.aws import Cloud
from deployment.errors import DeployError
from deployment.state import VARIANT

# (name, AWS's metric, its statistic, what one unit is divided by); latencies are in microseconds
_FIGURES = (
    ("calls", "Invocations", "Sum", 1.0),
    ("4xx", "Invocation4XXErrors", "Sum", 1.0),
    ("5xx", "Invocation5XXErrors", "Sum", 1.0),
    ("latency_ms", "ModelLatency", "Average", 1000.0),
    ("latency_max_ms", "ModelLatency", "Maximum", 1000.0),
    ("overhead_ms", "OverheadLatency", "Average", 1000.0),
)


def last(cloud: Cloud, name: str, hours: int = 1) -> dict[str, float]:
    """Return the figures of the last `hours`; only what CloudWatch has, nothing if unreadable."""
    end = datetime.now(UTC) + timedelta(minutes=1)  # what is counted in this minute too
    queries = [
        _query(f"f{number}", name, metric, statistic, hours * 3600)
        for number, (_, metric, statistic, _) in enumerate(_FIGURES)
    ]
    try:
        found = cloud.call(
            "cloudwatch", "get_metric_data", MetricDataQueries=queries,
            StartTime=end - timedelta(hours=hours), EndTime=end,
        )["MetricDataResults"]  # fmt: skip
    except DeployError:
        return {}
    values = {one["Id"]: one["Values"] for one in found}
    return {
        figure: round(values[f"f{number}"][0] / unit, 2)
        for number, (figure, _, _, unit) in enumerate(_FIGURES)
        if values.get(f"f{number}")
    }


def _query(label: str, name: str, metric: str, statistic: str, period: int) -> dict[str, Any]:
    where = [{"Name": "EndpointName", "Value": name}, {"Name": "VariantName", "Value": VARIANT}]
    measured = {"Namespace": "AWS/SageMaker", "MetricName": metric, "Dimensions": where}
    return {"Id": label, "MetricStat": {"Metric": measured, "Period": period, "Stat": statistic}}
