"""make cloud: an endpoint of real containers, taken up again after a kill, and nothing left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from deployment import image as images
from deployment.aws import Cloud
from local_test.cloud.errors import ApiError
from local_test.cloud.faults import Faults
from local_test.cloud.filters import Filter, parse, write
from local_test.cloud.launcher import memory_mb
from tests.deployment.conftest import DOCKER, ROOT, Moto
from tests.deployment.local_cloud import LocalCloud, archive, until
from tests.test_image import engine, required

needs_docker = pytest.mark.skipif(not required() and not engine(), reason="no Docker engine")
SETTINGS = 'name = "iris"\nmodel = "model.joblib"\nimage = "{image}"\nrole = "skserve"\n'
SMOKE = '[smoke]\nbody = "5.1,3.5,1.4,0.2"\n'


@pytest.mark.docker
@needs_docker
def test_a_model_becomes_an_endpoint_survives_a_kill_and_leaves_nothing(
    cloud: LocalCloud, on_cloud: str, models: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copy(models("iris") / "model.joblib", tmp_path / "model.joblib")
    (tmp_path / "endpoint.toml").write_text(SETTINGS.format(image=on_cloud) + SMOKE)

    done = cloud.deploy(tmp_path, "--poll", "0.1")
    assert "answered 0" in done.stderr
    assert "done; in service" in done.stdout
    assert "Listening at" in cloud.deploy(tmp_path, "logs").stdout

    before = cloud.containers()
    cloud.kill()
    cloud.start()

    assert "Took up what an earlier process left.\n" in cloud.log
    assert cloud.containers() == before
    assert cloud.invoke("iris") == b"0\n"
    cloud.fault(fault="container-dies", endpoint="iris")
    assert until(lambda: cloud.containers() not in (before, []) and cloud.containers())
    assert cloud.invoke("iris") == b"0\n"
    assert "nothing to change" in cloud.deploy(tmp_path, "--poll", "0.1").stdout
    cloud.deploy(tmp_path, "delete", "--yes", "--poll", "0.1")
    until(lambda: not cloud.containers())


@pytest.mark.docker
@needs_docker
def test_an_endpoint_fails_for_the_true_reason(cloud: LocalCloud, on_cloud: str) -> None:
    cloud.model("broken", on_cloud, archive(model__joblib=b"rubbish"))
    cloud.config("broken", "broken")

    found = cloud.endpoint("broken", "broken")

    assert found["EndpointStatus"] == "Failed"
    assert "did not pass the ping health check" in found["FailureReason"]
    logs = cloud.client("logs")
    group = "/aws/sagemaker/Endpoints/broken"
    (stream,) = logs.describe_log_streams(logGroupName=group)["logStreams"]
    events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])
    assert "model.joblib" in events["events"][-1]["message"]
    assert cloud.containers() == []
    with pytest.raises(ClientError, match="broken of account 123456789012 not found"):
        cloud.invoke("broken")
    # No container is needed to know these.
    for name, content, sentence in (
        ("nothing", b"no archive", "Failed to extract model data archive"),
        ("links", b"", "Failed to extract model data archive"),
    ):
        cloud.model(name, on_cloud, content)
        cloud.config(name, name)
        assert sentence in cloud.endpoint(name, name)["FailureReason"]
    cloud.client("s3").delete_object(Bucket="cloud-models", Key="nothing.tar.gz")
    cloud.config("gone", "nothing")
    assert "Failed to download model data" in cloud.endpoint("gone", "gone")["FailureReason"]


@pytest.mark.docker
@needs_docker
@pytest.mark.parametrize(
    ("operation", "given", "code", "sentence"),
    [
        ("list_workteams", {}, "NotModelledByLocalCloud",
         "SageMaker's ListWorkteams is not modelled here"),
        ("describe_endpoint", {"EndpointName": "no"}, "ValidationException", "Could not find"),
        ("describe_endpoint", {"EndpointName": "a_b"}, "ValidationException",
         "Value 'a_b' at 'endpointName' failed to satisfy constraint: Member must satisfy regular"),
        ("create_model", {"ModelName": "m", "ExecutionRoleArn": "arn:aws:iam::1:role/r12345678"},
         "ValidationException", "at 'executionRoleArn' failed to satisfy"),
        ("create_model", {
            "ModelName": "m", "ExecutionRoleArn": "arn:aws:iam::123456789012:role/skserve",
            "PrimaryContainer": {"Image": "skserve:1.9"},
        }, "ValidationException", 'Using non-ECR image "skserve:1.9"'),
        ("create_model", {
            "ModelName": "m", "ExecutionRoleArn": "arn:aws:iam::123456789012:role/none",
            "PrimaryContainer": {"Image": "x"},
        }, "ValidationException", "Could not assume role arn:aws:iam::123456789012:role/none"),
    ],
)  # fmt: skip
def test_a_refusal_says_why(
    operation: str, given: dict[str, object], code: str, sentence: str, cloud: LocalCloud
) -> None:
    with pytest.raises(ClientError) as told:
        getattr(cloud.client("sagemaker"), operation)(**given)

    assert told.value.response["Error"]["Code"] == code
    assert sentence in told.value.response["Error"]["Message"]


@pytest.mark.docker
@needs_docker
def test_the_real_image_is_pushed_as_sagemaker_takes_it(
    cloud: LocalCloud, on_cloud: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in cloud.environ.items():
        monkeypatch.setenv(key, value)
    found = images.in_ecr(Cloud(), on_cloud)

    assert (found.media_type, found.architecture) == (DOCKER, "amd64")
    assert found.labels["com.amazonaws.sagemaker.capabilities.multi-models"] == "true"
    assert found.labels["skserve.scikit-learn"]
    assert list(images.faults(found, "amd64")) == []


ALARM = {"AlarmName": "a", "EvaluationPeriods": 1, "ComparisonOperator": "GreaterThanThreshold"}
REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("cloudwatch", "put_metric_alarm", {**ALARM, "Metrics": [{"Id": "a", "Expression": "b"}]}),
    ("cloudwatch", "put_metric_alarm", {
        "AlarmName": "a", "EvaluationCriteria": {"PromQLCriteria": {"Query": "up"}}}),
    ("cloudwatch", "put_metric_alarm", {**ALARM, "ExtendedStatistic": "p99", "Threshold": 1,
                                        "MetricName": "b", "Namespace": "c", "Period": 60}),
    ("cloudwatch", "put_composite_alarm", {"AlarmName": "a", "AlarmRule": "TRUE"}),
    ("service-quotas", "list_services", {}),
    ("sagemaker", "create_endpoint_config", {
        "EndpointConfigName": "a", "ProductionVariants": [{"VariantName": "b"}]}),
    ("sagemaker", "create_endpoint_config", {
        "EndpointConfigName": "a", "ExplainerConfig": {"ClarifyExplainerConfig": {
            "ShapConfig": {"ShapBaselineConfig": {"MimeType": "text/csv"}}}},
        "ProductionVariants": [{"VariantName": "b"}]}),
]  # fmt: skip


@pytest.mark.parametrize(("service", "operation", "given"), REFUSED)
def test_what_is_not_modelled_is_refused_in_plain_words(
    service: str, operation: str, given: dict[str, Any], moto: Moto
) -> None:
    with pytest.raises(ClientError) as told:
        getattr(moto.client(service), operation)(**given)

    assert told.value.response["Error"]["Code"] == "NotModelledByLocalCloud"
    assert "is not modelled here; docs/35-cloud.md" in told.value.response["Error"]["Message"]


@pytest.mark.docker
@needs_docker
def test_an_oci_manifest_is_refused_at_create_model(cloud: LocalCloud, on_cloud: str) -> None:
    kind = "application/vnd.oci.image.index.v1+json"
    cloud.client("ecr").put_image(
        repositoryName="skserve", imageManifest='{"schemaVersion": 2, "manifests": []}',
        imageManifestMediaType=kind, imageTag="oci",
    )  # fmt: skip

    with pytest.raises(
        ClientError, match=f"Unsupported manifest media type {kind}".replace("+", ".")
    ):
        cloud.model("oci", f"{on_cloud.split('@')[0]}:oci", b"")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([], "is a JSON object, not []"),
        ({"fault": "none"}, "fault 'none' is none of container-dies, "),
        ({"fault": "throttle"}, "the fault throttle needs operation"),
        ({"fault": "throttle", "operation": "X", "times": "2"}, "times of a fault is int, not '2'"),
        ({"fault": "throttle", "operation": "X", "count": 2}, "a fault has no 'count', only fault"),
        ({"fault": "slow-start", "endpoint": "*", "seconds": True}, "is int or float, not True"),
    ],
)
def test_a_fault_that_cannot_be_understood_is_refused(asked: Any, said: str) -> None:
    with pytest.raises(ApiError) as told:
        Faults().add(asked)
    assert said in told.value.message


@pytest.mark.docker
@needs_docker
def test_faults_come_as_often_as_they_were_asked_for(cloud: LocalCloud) -> None:
    cloud.fault(fault="throttle", operation="ListModels", times=2)
    cloud.fault(fault="denied", operation="ListEndpoints")

    for operation, code in (
        ("list_models", "ThrottlingException"),
        ("list_models", "ThrottlingException"),
        ("list_endpoints", "AccessDeniedException"),
    ):
        with pytest.raises(ClientError) as told:
            getattr(cloud.client("sagemaker"), operation)()
        assert told.value.response["Error"]["Code"] == code
    assert cloud.client("sagemaker").list_models()["Models"] is not None


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("unix:///nowhere.sock", "Docker does not answer at unix:///nowhere.sock: "),
        ("ssh://somewhere", "Docker is asked at unix:// or tcp:// only, not at ssh://somewhere, "),
    ],
)
def test_without_docker_one_sentence_says_what_runs(host: str, reason: str, tmp_path: Path) -> None:
    environ = os.environ | {"DOCKER_HOST": host}
    done = subprocess.run(
        [sys.executable, "-m", "local_test.cloud", "--folder", str(tmp_path / "c")], cwd=ROOT,
        env=environ, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {reason}")
    assert done.stderr.count("\n") == 1
    assert "CLOUD=--no-containers" in done.stderr


@pytest.mark.parametrize(
    ("expression", "record", "kept"),
    [
        ("$", b"1,2,3", b"1,2,3"),
        ("$[1:]", b"1,2,3", b"2,3"),
        ("$[0,2]", b"1,2,3", b"1,3"),
        ("$[-1]", b'1,2,"a,b"', b'"a,b"'),
        ("$[:-1]", b"1,2,3", b"1,2"),
    ],
)
def test_a_filter_takes_cells_of_csv(expression: str, record: bytes, kept: bytes) -> None:
    assert write(Filter(expression)(parse(record, "text/csv")), "text/csv") == kept


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("$.a", b"1"),
        ("$['a','c']", b'{"a": 1, "c": [4, 5, 6]}'),
        ("$.c[1:]", b"[5, 6]"),
        ("$.c[0,-1]", b"[4, 6]"),
        ("$.c[0]", b"4"),
        ("$.b.*", b"[2]"),
    ],
)
def test_a_filter_takes_parts_of_json(expression: str, kept: bytes) -> None:
    record = parse(b'{"a": 1, "b": {"x": 2}, "c": [4, 5, 6]}', "application/json")

    assert write(Filter(expression)(record), "application/json") == kept


@pytest.mark.parametrize("expression", ["a", "$..a", "$[?(@.x)]", "$[", "$['a'"])
def test_a_filter_that_cannot_be_read_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="filter"):
        Filter(expression)


@pytest.mark.parametrize(
    ("kind", "mb"),
    [("ml.m5.large", 8192), ("ml.c5.2xlarge", 16384), ("ml.r5.xlarge", 32768),
     ("ml.t2.medium", 4096), ("ml.p3.2xlarge", None)],
)  # fmt: skip
def test_a_container_may_use_what_its_instance_type_has(kind: str, mb: int | None) -> None:
    assert memory_mb({"InstanceType": kind}) == mb
