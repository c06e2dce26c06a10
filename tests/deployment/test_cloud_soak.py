"""make cloud for longer: callers through every change, jobs, many models, and other clients."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import ROOT
from tests.deployment.local_cloud import (
    BUCKET,
    FLOWER,
    ROLE,
    Caller,
    LocalCloud,
    archive,
    until,
)
from tests.test_image import engine, required

pytestmark = [
    pytest.mark.soak,
    pytest.mark.docker,
    pytest.mark.skipif(not required() and not engine(), reason="no Docker engine"),
]
FAILS = b"""
import os
import joblib
def model_fn(folder):
    return joblib.load(os.path.join(folder, "model.joblib"))
def predict_fn(rows, model):
    raise RuntimeError("no")
"""
ALARM = {
    "Namespace": "AWS/SageMaker", "MetricName": "Invocation5XXErrors", "Statistic": "Average",
    "Period": 60, "EvaluationPeriods": 1, "Threshold": 0.1, "TreatMissingData": "notBreaching",
    "ComparisonOperator": "GreaterThanThreshold",
}  # fmt: skip
CANARY = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {
    "Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50},
    "WaitIntervalInSeconds": 900}}, "AutoRollbackConfiguration": {
    "Alarms": [{"AlarmName": "errors"}]}}  # fmt: skip


@pytest.fixture(scope="module")
def iris(models: Callable[[str], Path]) -> bytes:
    return archive(model__joblib=models("iris") / "model.joblib")


@pytest.fixture(scope="module")
def good(cloud: LocalCloud, on_cloud: str, iris: bytes) -> str:
    cloud.model("good", on_cloud, iris)
    return "good"


def test_a_caller_sees_nothing_of_changes_but_a_killed_containers_own_calls(
    cloud: LocalCloud, on_cloud: str, good: str, models: Callable[[str], Path]
) -> None:
    joblib = models("iris") / "model.joblib"
    cloud.model("bad", on_cloud, archive(model__joblib=joblib, code___inference__py=FAILS))
    cloud.model("broken", on_cloud, archive(model__joblib=b"rubbish"))
    for name, model in (("one", good), ("two", good), ("fails", "bad"), ("no-load", "broken")):
        cloud.config(name, model, 2)
    assert cloud.endpoint("busy", "one")["EndpointStatus"] == "InService"
    where = [
        {"Name": "EndpointName", "Value": "busy"},
        {"Name": "VariantName", "Value": "AllTraffic"},
    ]
    cloud.client("cloudwatch").put_metric_alarm(AlarmName="errors", Dimensions=where, **ALARM)
    caller = Caller(cloud, "busy")
    caller.start()
    try:
        assert cloud.update("busy", "two")["EndpointConfigName"] == "two"
        calls, failures = caller.taken()
        assert (calls > 20, failures) == (True, [])

        found = cloud.update("busy", "no-load")
        assert (found["EndpointConfigName"], found["EndpointStatus"]) == ("two", "InService")
        assert "ping health check" in found["FailureReason"]
        assert caller.taken()[1] == []

        found = cloud.update("busy", "fails", DeploymentConfig=CANARY)
        assert (found["EndpointConfigName"], found["EndpointStatus"]) == ("two", "InService")
        assert "ALARM: errors" in found["FailureReason"]
        calls, failures = caller.taken()
        assert all("predict_fn failed" in failure for failure in failures), failures
        assert 0 < len(failures) < calls / 2

        cloud.client("sagemaker").update_endpoint_weights_and_capacities(
            EndpointName="busy",
            DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 3}],
        )
        found = cloud.settled("busy")
        assert found["ProductionVariants"][0]["CurrentInstanceCount"] == 3
        time.sleep(1)
        assert caller.taken()[1] == []

        cloud.fault(fault="container-dies", endpoint="busy")
        time.sleep(2)
        until(lambda: len(cloud.containers()) == 3)
        cloud.settled("busy")
        time.sleep(2)
        # One caller: at most one call was with the container, and one found it half gone.
        assert len(caller.taken()[1]) <= 2
    finally:
        caller.end()
        cloud.client("sagemaker").delete_endpoint(EndpointName="busy")
    until(lambda: not cloud.containers())


def test_an_asynchronous_endpoint_answers_into_s3_and_wakes_from_zero(
    cloud: LocalCloud, good: str
) -> None:
    outputs = {"S3OutputPath": f"s3://{BUCKET}/async", "S3FailurePath": f"s3://{BUCKET}/failed"}
    cloud.config("later", good, AsyncInferenceConfig={"OutputConfig": outputs})
    cloud.endpoint("later", "later")
    scaling, s3 = cloud.client("application-autoscaling"), cloud.client("s3")
    target = {"ServiceNamespace": "sagemaker", "ResourceId": "endpoint/later/variant/AllTraffic",
              "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}  # fmt: skip
    where = [{"Name": "EndpointName", "Value": "later"}]
    scaling.register_scalable_target(**target, MinCapacity=0, MaxCapacity=2)
    scaling.put_scaling_policy(
        **target, PolicyName="backlog", PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 5.0, "ScaleInCooldown": 60, "CustomizedMetricSpecification": {
                "MetricName": "ApproximateBacklogSizePerInstance", "Namespace": "AWS/SageMaker",
                "Dimensions": where, "Statistic": "Average"}},
    )  # fmt: skip
    policy = scaling.put_scaling_policy(
        **target, PolicyName="wake", PolicyType="StepScaling", StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity", "Cooldown": 60,
            "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}]},
    )  # fmt: skip
    cloud.client("cloudwatch").put_metric_alarm(
        AlarmName="wake", Dimensions=where, AlarmActions=[policy["PolicyARN"]],
        **ALARM | {"MetricName": "HasBacklogWithoutCapacity", "Threshold": 0.5},
    )  # fmt: skip
    until(lambda: not cloud.containers(), 120)

    def later(body: bytes, key: str) -> Any:
        s3.put_object(Bucket=BUCKET, Key="input", Body=body)
        answer = cloud.client("sagemaker-runtime").invoke_endpoint_async(
            EndpointName="later", InputLocation=f"s3://{BUCKET}/input", ContentType="text/csv"
        )
        found = answer[key].removeprefix(f"s3://{BUCKET}/")
        return until(lambda: _object(s3, found), 120)

    assert later(FLOWER, "OutputLocation") == b"[0]"
    assert b"Row 1 has 2 values" in later(b"1,2", "FailureLocation")
    cloud.settled("later")
    _deleted(cloud, "later")


def test_many_models_come_and_go_by_their_name(
    cloud: LocalCloud, on_cloud: str, iris: bytes
) -> None:
    for key in ("many/a.tar.gz", "many/x/b.tar.gz"):
        cloud.client("s3").put_object(Bucket=BUCKET, Key=key, Body=iris)
    cloud.client("sagemaker").create_model(
        ModelName="many", ExecutionRoleArn=ROLE,
        PrimaryContainer={"Image": on_cloud, "ModelDataUrl": f"s3://{BUCKET}/many/",
                          "Mode": "MultiModel"},
    )  # fmt: skip
    cloud.config("many", "many")
    cloud.endpoint("many", "many")

    for target in ("a.tar.gz", "x/b.tar.gz", "a.tar.gz"):
        assert cloud.invoke("many", TargetModel=target) == b"0\n"
    with pytest.raises(ClientError, match="Failed to download model data"):
        cloud.invoke("many", TargetModel="none.tar.gz")
    with pytest.raises(ClientError, match="TargetModel is required"):
        cloud.invoke("many")
    _deleted(cloud, "many")


def test_a_serverless_endpoint_sleeps_and_wakes_and_keeps_its_limits(
    cloud: LocalCloud, on_cloud: str, iris: bytes
) -> None:
    cloud.client("s3").put_object(Bucket=BUCKET, Key="sleeper.tar.gz", Body=iris)
    sagemaker = cloud.client("sagemaker")
    sagemaker.create_model(
        ModelName="sleeper", ExecutionRoleArn=ROLE,
        PrimaryContainer={"Image": on_cloud, "ModelDataUrl": f"s3://{BUCKET}/sleeper.tar.gz"},
    )  # fmt: skip
    sagemaker.create_endpoint_config(EndpointConfigName="sleeper", ProductionVariants=[
        {"VariantName": "AllTraffic", "ModelName": "sleeper",
         "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5}}])  # fmt: skip
    cloud.endpoint("sleeper", "sleeper")
    runtime = cloud.client("sagemaker-runtime")

    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName="sleeper", Body=FLOWER + b"\n" + FLOWER, ContentType="text/csv",
        Accept="text/csv",
    )  # fmt: skip
    assert b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"]) == b"0\n0\n"
    with pytest.raises(ClientError) as told:
        cloud.invoke("sleeper", b"1,2")
    assert told.value.response["OriginalStatusCode"] == 400
    assert "Row 1 has 2 values" in told.value.response["OriginalMessage"]
    with pytest.raises(ClientError, match="length less than or equal to 4194304"):
        cloud.invoke("sleeper", b"1" * (5 << 20))
    until(lambda: not cloud.containers(), 120)
    assert cloud.invoke("sleeper") == b"0\n"
    _deleted(cloud, "sleeper")


def test_jobs_transform_and_train(cloud: LocalCloud, on_cloud: str, good: str) -> None:
    sagemaker, s3 = cloud.client("sagemaker"), cloud.client("s3")
    s3.put_object(Bucket=BUCKET, Key="in/a.csv", Body=b"5.1,3.5,1.4,0.2\n6.7,3.0,5.2,2.3\n" * 50)
    s3.put_object(Bucket=BUCKET, Key="in/b.csv", Body=b"1,2,3\n")

    def transformed(name: str, prefix: str) -> dict[str, Any]:
        sagemaker.create_transform_job(
            TransformJobName=name, ModelName=good,
            TransformInput={"DataSource": {"S3DataSource": {
                "S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/{prefix}"}},
                "ContentType": "text/csv", "SplitType": "Line"},
            TransformOutput={"S3OutputPath": f"s3://{BUCKET}/out", "Accept": "text/csv",
                             "AssembleWith": "Line"},
            TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
            DataProcessing={"JoinSource": "Input", "OutputFilter": "$[0,-1]"},
        )  # fmt: skip
        return dict(
            until(lambda: _ended(sagemaker.describe_transform_job(TransformJobName=name)), 180)
        )

    assert transformed("good-rows", "in/a")["TransformJobStatus"] == "Completed"
    assert _object(s3, "out/a.csv.out") == b"5.1,0\n6.7,2\n" * 50
    failed = transformed("bad-rows", "in/b")
    assert failed["FailureReason"].startswith("ClientError")
    assert _object(s3, "out/b.csv.out") is None

    wine = ROOT / "local_test" / "test_dir" / "input" / "data" / "train" / "wine.csv"
    s3.upload_file(str(wine), BUCKET, "train/wine.csv")

    def trained(name: str, **hyperparameters: str) -> dict[str, Any]:
        sagemaker.create_training_job(
            TrainingJobName=name, RoleArn=ROLE, EnableNetworkIsolation=True,
            AlgorithmSpecification={
                "TrainingImage": on_cloud, "TrainingInputMode": "File", "MetricDefinitions": [
                    {"Name": "accuracy", "Regex": "validation_accuracy=([0-9.eE+-]+)"}]},
            HyperParameters=hyperparameters,
            InputDataConfig=[{"ChannelName": "train", "ContentType": "text/csv", "DataSource": {
                "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/train/"}}}],
            OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/trained"},
            ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            StoppingCondition={"MaxRuntimeInSeconds": 600},
        )  # fmt: skip
        return dict(
            until(lambda: _ended(sagemaker.describe_training_job(TrainingJobName=name)), 240)
        )

    done = trained("trees", estimator="sklearn.tree.DecisionTreeClassifier", target="cultivar")
    assert done["TrainingJobStatus"] == "Completed", done
    assert done["FinalMetricDataList"][0]["Value"] > 0.5
    assert _object(s3, "trained/trees/output/model.tar.gz")
    wrong = trained("nothing", estimator="no.Such")
    assert "'no.Such' is not an estimator" in wrong["FailureReason"]
    assert cloud.containers() == []


# Each client in an environment of its own, as its users have it.
V2 = """
import boto3, sagemaker
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer
from sagemaker.deserializers import CSVDeserializer
session = sagemaker.Session(default_bucket="{bucket}")
model = Model(image_uri="{image}", model_data="s3://{bucket}/good.tar.gz", role="{role}",
              predictor_cls=Predictor, sagemaker_session=session, name="sdk-two")
predictor = model.deploy(1, "ml.m5.large", endpoint_name="sdk-two",
                         serializer=CSVSerializer(), deserializer=CSVDeserializer())
assert predictor.predict("5.1,3.5,1.4,0.2") == [["0"]]
transformer = model.transformer(1, "ml.m5.large", strategy="MultiRecord", accept="text/csv",
                                assemble_with="Line", output_path="s3://{bucket}/sdk-out")
transformer.transform("s3://{bucket}/sdk-in/rows.csv", content_type="text/csv", split_type="Line")
body = boto3.client("s3").get_object(Bucket="{bucket}", Key="sdk-out/rows.csv.out")["Body"].read()
assert body == b"0\\n", body
predictor.delete_model()
predictor.delete_endpoint()
"""
V3 = """
import time
from sagemaker.core.resources import Endpoint, EndpointConfig, Model
from sagemaker.core.shapes import ContainerDefinition, ProductionVariant
Model.create(model_name="sdk-three", execution_role_arn="{role}",
             primary_container=ContainerDefinition(image="{image}",
                                                   model_data_url="s3://{bucket}/good.tar.gz"))
EndpointConfig.create(endpoint_config_name="sdk-three", production_variants=[ProductionVariant(
    variant_name="AllTraffic", model_name="sdk-three", instance_type="ml.m5.large",
    initial_instance_count=1)])
endpoint = Endpoint.create(endpoint_name="sdk-three", endpoint_config_name="sdk-three")
endpoint.wait_for_status("InService", poll=1)
answer = endpoint.invoke(body=b"5.1,3.5,1.4,0.2", content_type="text/csv", accept="text/csv")
assert answer.body.read() == b"0\\n"
endpoint.delete()
"""
CLI = """
set -e
aws sagemaker create-model --model-name cli --execution-role-arn {role} --primary-container \
  Image={image},ModelDataUrl=s3://{bucket}/good.tar.gz > /dev/null
aws sagemaker create-endpoint-config --endpoint-config-name cli --production-variants \
  VariantName=AllTraffic,ModelName=cli,InstanceType=ml.m5.large,InitialInstanceCount=1 > /dev/null
aws sagemaker create-endpoint --endpoint-name cli --endpoint-config-name cli > /dev/null
aws sagemaker wait endpoint-in-service --endpoint-name cli
printf 5.1,3.5,1.4,0.2 > body.csv
aws sagemaker-runtime invoke-endpoint --endpoint-name cli --content-type text/csv \
  --accept text/csv --body fileb://body.csv answer > /dev/null
test "$(cat answer)" = 0
aws sagemaker delete-endpoint --endpoint-name cli
"""


@pytest.mark.parametrize(
    ("lock", "command", "script"),
    [("sdk-2", "python", V2), ("sdk-3", "python", V3), ("cli", "bash", CLI)],
)
def test_other_clients_create_call_and_delete(
    lock: str, command: str, script: str, cloud: LocalCloud, on_cloud: str, good: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    listed = ROOT / "requirements" / "clients" / f"{lock}.txt"
    install = [str(venv / "bin" / "pip"), "install", "--quiet", "--require-hashes", "-r", listed]
    subprocess.run(install, check=True, capture_output=True, timeout=900)
    cloud.client("s3").put_object(Bucket=BUCKET, Key="sdk-in/rows.csv", Body=FLOWER + b"\n")
    path = tmp_path / "script"
    path.write_text(textwrap.dedent(script).format(bucket=BUCKET, image=on_cloud, role=ROLE))
    environ = cloud.environ | {"HOME": str(tmp_path)}
    environ["PATH"] = f"{venv / 'bin'}:{environ['PATH']}"
    program = shutil.which(command, path=environ["PATH"])

    done = subprocess.run([str(program), str(path)], cwd=tmp_path, env=environ, text=True,
                          capture_output=True, timeout=600, check=False)  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: not cloud.containers(), 120)


def _object(s3: Any, key: str) -> bytes | None:
    try:
        return bytes(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    except s3.exceptions.NoSuchKey:
        return None


def _ended(job: dict[str, Any]) -> dict[str, Any] | None:
    status = job.get("TrainingJobStatus") or job.get("TransformJobStatus")
    return job if status in ("Completed", "Failed", "Stopped") else None


def _deleted(cloud: LocalCloud, name: str) -> None:
    cloud.settled(name)
    cloud.client("sagemaker").delete_endpoint(EndpointName=name)
    until(lambda: not cloud.containers(), 120)
