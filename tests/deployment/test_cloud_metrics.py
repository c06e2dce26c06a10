"""What the local cloud counts, as CloudWatch's callers read it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import boto3
from moto import mock_aws

from local_test.cloud.metrics import NAMESPACE, Metrics, exact_dimensions
from local_test.cloud.services import Services
from local_test.cloud.speed import Speed
from tests.deployment.conftest import REGION


def test_a_call_counts_once_whichever_call_reads_it() -> None:
    variant = {"EndpointName": "wine", "VariantName": "AllTraffic"}
    dimensions = [{"Name": key, "Value": value} for key, value in variant.items()]
    now = datetime.now(UTC)
    with mock_aws():
        exact_dimensions()
        metrics = Metrics(Services(REGION), Speed())
        metrics.call({**variant, "EndpointConfigName": "wine-1"}, 200, 0.1, 0.2)
        metrics.flush()
        cloudwatch = boto3.client(
            "cloudwatch", REGION, aws_access_key_id="x", aws_secret_access_key="x"
        )
        when = {"StartTime": now - timedelta(hours=1), "EndTime": now + timedelta(hours=1)}
        statistics = cloudwatch.get_metric_statistics(
            Namespace=NAMESPACE, MetricName="Invocations", Period=7200, Statistics=["Sum"],
            Dimensions=dimensions, **when,
        )["Datapoints"]  # fmt: skip
        metric = {"Namespace": NAMESPACE, "MetricName": "Invocations", "Dimensions": dimensions}
        asked = {"Id": "a", "MetricStat": {"Metric": metric, "Period": 7200, "Stat": "Sum"}}
        (data,) = cloudwatch.get_metric_data(MetricDataQueries=[asked], **when)["MetricDataResults"]
        listed = cloudwatch.list_metrics(Namespace=NAMESPACE, MetricName="Invocations")["Metrics"]
        seconds = now.timestamp()
        sums = metrics.sums(NAMESPACE, "Invocations", variant, seconds - 60, seconds + 60)

    assert [point["Sum"] for point in statistics] == [1.0]
    assert data["Values"] == [1.0]
    assert len(listed) == 2
    assert sums.total == 1.0
