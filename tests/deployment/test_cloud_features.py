"""make cloud, feature by feature: each is used once for real, with containers of the real image."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pytest
from botocore.exceptions import ClientError
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier

from tests.deployment.conftest import ROOT
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
SETTINGS = 'name = "{name}"\nmodel = "model.joblib"\nimage = "{image}"\nrole = "skserve"\n'
STEP = {"Type": "CAPACITY_PERCENT", "Value": 50}
LINEAR = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {
    "Type": "LINEAR", "LinearStepSize": STEP, "WaitIntervalInSeconds": 300}}}  # fmt: skip
ROLLING = {"RollingUpdatePolicy": {"MaximumBatchSize": STEP, "WaitIntervalInSeconds": 300}}
STREAMS = b"""
import time
def model_fn(folder):
    return 3
def predict_fn(rows, model):
    return range(model)
def output_fn(numbers, accept):
    for number in numbers:
        yield b"%d\\n" % number
        time.sleep(1)
"""
LARGE = b"""
def model_fn(folder):
    return b"x" * (2 << 30)
def predict_fn(rows, model):
    return [len(model) >> 30]
"""
SLOW = b"""
import time
def predict_fn(rows, model):
    time.sleep(0.6)
    return model.predict(rows)
"""


@pytest.fixture(scope="module")
def iris(models: Callable[[str], Path]) -> bytes:
    return archive(model__joblib=models("iris") / "model.joblib")


@pytest.fixture(scope="module")
def folder(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with a model that answers 0 for FLOWER, and one that answers 2."""
    here = tmp_path_factory.mktemp("work")
    shutil.copy(models("iris") / "model.joblib", here)
    two = DummyClassifier(strategy="constant", constant=2).fit(*load_iris(return_X_y=True))
    joblib.dump(two, here / "two.joblib")
    return here


@pytest.fixture(scope="module")
def good(cloud: LocalCloud, on_cloud: str, iris: bytes) -> str:
    cloud.model("zero", on_cloud, iris)
    return "zero"


@pytest.fixture(scope="module")
def other(cloud: LocalCloud, on_cloud: str, folder: Path) -> str:
    cloud.model("two", on_cloud, archive(model__joblib=folder / "two.joblib"))
    return "two"


def written(folder: Path, name: str, image: str, more: str = "", **keys: str) -> None:
    text = SETTINGS.format(name=name, image=image)
    text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    (folder / "endpoint.toml").write_text(text + more)


def gone(cloud: LocalCloud, name: str) -> None:
    cloud.settled(name)
    cloud.client("sagemaker").delete_endpoint(EndpointName=name)
    until(lambda: not cloud.containers(), 120)


def counted(cloud: LocalCloud, name: str, metric: str, variant: str) -> float:
    found = cloud.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker", MetricName=metric, Period=3600, Statistics=["Sum"],
        StartTime=time.time() - 3600, EndTime=time.time() + 60,
        Dimensions=[{"Name": "EndpointName", "Value": name},
                    {"Name": "VariantName", "Value": variant}],
    )  # fmt: skip
    return float(sum(point["Sum"] for point in found["Datapoints"]))


@pytest.mark.parametrize(("kind", "policy", "most"), [("linear", LINEAR, 4), ("roll", ROLLING, 3)])
def test_traffic_goes_over_in_steps(
    kind: str, policy: dict[str, Any], most: int, cloud: LocalCloud, good: str, other: str
) -> None:
    cloud.config(f"{kind}-a", good, 2)
    cloud.config(f"{kind}-b", other, 2)
    cloud.endpoint(kind, f"{kind}-a")
    sagemaker = cloud.client("sagemaker")
    sagemaker.update_endpoint(
        EndpointName=kind, EndpointConfigName=f"{kind}-b", DeploymentConfig=policy
    )
    answers, containers, told = [], 0, []
    while cloud.client("sagemaker").describe_endpoint(EndpointName=kind)["EndpointStatus"] != (
        "InService"
    ):
        answers.append(cloud.invoke(kind))
        containers = max(containers, len(cloud.containers()))
        told.append(sagemaker.describe_endpoint(EndpointName=kind))
    answers.append(cloud.invoke(kind))

    first, last = answers.index(b"2\n"), len(answers) - answers[::-1].index(b"0\n")
    mixed = answers[first:last]
    assert set(answers) == {b"0\n", b"2\n"}
    assert 0.3 < mixed.count(b"2\n") / len(mixed) < 0.7, mixed
    assert answers[-1] == b"2\n"
    assert containers <= most
    assert any(one.get("PendingDeploymentSummary") for one in told)
    gone(cloud, kind)


def test_counts_and_weights_are_retained_where_that_is_asked(
    cloud: LocalCloud, good: str, other: str
) -> None:
    for number, model in enumerate((good, other, good)):
        cloud.config(f"kept-{number}", model)
    cloud.endpoint("kept", "kept-0")
    wanted = {"VariantName": "AllTraffic", "DesiredInstanceCount": 2, "DesiredWeight": 0.5}
    cloud.client("sagemaker").update_endpoint_weights_and_capacities(
        EndpointName="kept", DesiredWeightsAndCapacities=[wanted]
    )
    cloud.settled("kept")

    def variant(config: str, **more: Any) -> tuple[int, float]:
        (found,) = cloud.update("kept", config, **more)["ProductionVariants"]
        return found["CurrentInstanceCount"], found["CurrentWeight"]

    excluded = [{"VariantPropertyType": "DesiredWeight"}]
    assert variant("kept-1", RetainAllVariantProperties=True,
                   ExcludeRetainedVariantProperties=excluded) == (2, 1.0)  # fmt: skip
    assert variant("kept-2") == (1, 1.0)
    gone(cloud, "kept")


def test_a_shadow_gets_copies_and_calls_are_captured(
    cloud: LocalCloud, on_cloud: str, folder: Path
) -> None:
    more = f'[shadow]\nmodel = "two.joblib"\n[capture]\ndestination = "s3://{BUCKET}/captured"\n'
    written(folder, "watched", on_cloud, more)
    cloud.deploy(folder, "--poll", "0.2")

    said = [cloud.deploy(folder, "invoke", "--data", FLOWER.decode(), "--inference-id", "x",
                         "--accept", "text/csv").stdout for _ in range(3)]  # fmt: skip

    assert said == ["0\n"] * 3
    until(lambda: counted(cloud, "watched", "Invocations", "Shadow") >= 3)
    assert counted(cloud, "watched", "Invocations", "AllTraffic") == 3
    s3 = cloud.client("s3")
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix="captured/watched/AllTraffic/")["Contents"]
    lines = [json.loads(s3.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read())
             for one in listed]  # fmt: skip
    assert len(lines) == 3
    sides = lines[0]["captureData"]
    assert (sides["endpointInput"]["data"], sides["endpointOutput"]["data"]) == (
        FLOWER.decode(), "0\n",
    )  # fmt: skip
    assert sides["endpointOutput"]["encoding"] == "CSV"
    assert lines[0]["eventMetadata"]["inferenceId"] == "x"
    cloud.deploy(folder, "delete", "--yes", "--poll", "0.2")


def test_of_many_models_the_one_called_longest_ago_makes_room(
    cloud: LocalCloud, on_cloud: str, iris: bytes
) -> None:
    large = archive(code___inference__py=LARGE)
    for key, content in (("a", large), ("b", large), ("small", iris)):
        cloud.client("s3").put_object(Bucket=BUCKET, Key=f"room/{key}.tar.gz", Body=content)
    cloud.client("sagemaker").create_model(
        ModelName="room", ExecutionRoleArn=ROLE, PrimaryContainer={
            "Image": on_cloud, "ModelDataUrl": f"s3://{BUCKET}/room/", "Mode": "MultiModel"},
    )  # fmt: skip
    variant = {"VariantName": "AllTraffic", "ModelName": "room", "InstanceType": "ml.t2.medium",
               "InitialInstanceCount": 1}  # fmt: skip
    cloud.client("sagemaker").create_endpoint_config(
        EndpointConfigName="room", ProductionVariants=[variant]
    )
    cloud.endpoint("room", "room")

    for target, answer in (("small", b"0\n"), ("a", b"2\n"), ("b", b"2\n"), ("small", b"0\n"),
                           ("a", b"2\n")):  # fmt: skip
        assert cloud.invoke("room", TargetModel=f"{target}.tar.gz") == answer, target
    log = cloud.logged("room")
    assert "There was not enough memory to load the model" in log
    assert ": unloaded" in log
    gone(cloud, "room")


def test_an_asynchronous_call_is_notified_of_both_ends(cloud: LocalCloud, good: str) -> None:
    sns, sqs, s3 = cloud.client("sns"), cloud.client("sqs"), cloud.client("s3")
    queue = sqs.create_queue(QueueName="ends")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    topics = {}
    for kind in ("Success", "Error"):
        topics[f"{kind}Topic"] = topic = sns.create_topic(Name=kind)["TopicArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn["QueueArn"])
    outputs = {"S3OutputPath": f"s3://{BUCKET}/ends", "S3FailurePath": f"s3://{BUCKET}/ends-bad",
               "NotificationConfig": topics}  # fmt: skip
    cloud.config("ends", good, AsyncInferenceConfig={"OutputConfig": outputs})
    cloud.endpoint("ends", "ends")

    def told(body: bytes) -> dict[str, Any]:
        s3.put_object(Bucket=BUCKET, Key="ends-in", Body=body)
        cloud.client("sagemaker-runtime").invoke_endpoint_async(
            EndpointName="ends", InputLocation=f"s3://{BUCKET}/ends-in", ContentType="text/csv"
        )
        (message,) = until(
            lambda: sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages"), 60
        )
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return dict(json.loads(json.loads(message["Body"])["Message"]))

    good_one, bad_one = told(FLOWER), told(b"1,2")
    assert good_one["invocationStatus"] == "Completed"
    assert good_one["responseParameters"]["outputLocation"].startswith(f"s3://{BUCKET}/ends/")
    assert bad_one["invocationStatus"] == "Failed"
    assert "Row 1 has 2 values" in bad_one["failureReason"]
    gone(cloud, "ends")


def test_no_capacity_fails_or_falls_back_and_a_slow_start_is_waited_for(
    cloud: LocalCloud, on_cloud: str, folder: Path
) -> None:
    written(folder, "scarce", on_cloud)
    cloud.fault(fault="no-capacity", endpoint="scarce")
    failed = cloud.deploy(folder, "--poll", "0.2", code=1)
    assert "InsufficientInstanceCapacity" in failed.stderr

    written(folder, "scarce", on_cloud, '[instance]\nfallbacks = ["ml.c5.xlarge"]\n')
    cloud.fault(fault="no-capacity", endpoint="scarce")
    cloud.fault(fault="slow-start", endpoint="scarce", seconds=2)
    began = time.monotonic()
    cloud.deploy(folder, "--poll", "0.2")
    assert time.monotonic() - began > 2
    (found,) = cloud.settled("scarce")["ProductionVariants"]
    counts = {one["InstanceType"]: one["CurrentInstanceCount"] for one in found["InstancePools"]}
    assert counts == {"ml.m5.large": 0, "ml.c5.xlarge": 1}
    assert "nothing to change" in cloud.deploy(folder).stdout
    cloud.deploy(folder, "delete", "--yes", "--poll", "0.2")


def test_a_schedule_brings_instances(cloud: LocalCloud, on_cloud: str, folder: Path) -> None:
    more = '[scaling]\nmax = 3\ntarget = 9000\n[scaling.schedules.now]\nwhen = "rate(5 minutes)"\n'
    written(folder, "daily", on_cloud, more + "min = 2\n")
    cloud.deploy(folder, "--poll", "0.2")

    until(lambda: len(cloud.containers()) == 2, 60)

    cloud.settled("daily")
    assert "nothing to change" in cloud.deploy(folder).stdout
    cloud.deploy(folder, "delete", "--yes", "--poll", "0.2")
    scaling = cloud.client("application-autoscaling")
    assert scaling.describe_scheduled_actions(ServiceNamespace="sagemaker")[
        "ScheduledActions"] == []  # fmt: skip


def test_a_trained_model_is_registered_and_deployed(
    cloud: LocalCloud, on_cloud: str, folder: Path
) -> None:
    wine = ROOT / "local_test" / "test_dir" / "input" / "data" / "train" / "wine.csv"
    job = (f'[train]\nregister = "wine"\napproved = true\nchannels = {{train = "{wine}"}}\n'
           'hyperparameters = {estimator = "sklearn.tree.DecisionTreeClassifier", '
           'target = "cultivar"}\n')  # fmt: skip
    written(folder, "wine", on_cloud, job)
    trained = json.loads(cloud.deploy(folder, "train", "--poll", "0.5", "--json").stdout)
    package = cloud.client("sagemaker").describe_model_package(
        ModelPackageName=trained["model_package"]
    )
    assert "validation_accuracy" in package["CustomerMetadataProperties"]
    text = SETTINGS.format(name="wine", image=on_cloud).replace("model =", "# ")
    (folder / "endpoint.toml").write_text(text + 'model_package = "wine"\n')

    cloud.deploy(folder, "--poll", "0.2")

    row = "13.7,1.9,2.4,17,120,2.4,2.1,0.3,1.5,5,1.0,2.9,800"
    assert cloud.deploy(folder, "invoke", "--data", row).stdout.strip()
    assert "nothing to change" in cloud.deploy(folder).stdout
    cloud.deploy(folder, "delete", "--yes", "--poll", "0.2")


def test_a_stream_is_printed_as_it_comes(cloud: LocalCloud, on_cloud: str, folder: Path) -> None:
    (folder / "code").mkdir()
    (folder / "code" / "inference.py").write_bytes(STREAMS)
    written(folder, "stream", on_cloud, code="code")
    cloud.deploy(folder, "--poll", "0.2")

    words = [sys.executable, str(ROOT / "deploy.py"), "invoke", "--data", "1", "--stream"]
    times = []
    with subprocess.Popen(words, cwd=folder, env=cloud.environ, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        lines = []
        for line in running.stdout:
            lines.append(line)
            times.append(time.monotonic())

    assert lines == [b"0\n", b"1\n", b"2\n"]
    assert times[-1] - times[0] > 1.5
    cloud.deploy(folder, "delete", "--yes", "--poll", "0.2")


def test_a_caller_sees_only_the_killed_containers_calls_fail(
    cloud: LocalCloud, on_cloud: str, folder: Path
) -> None:
    """The whole life of an endpoint by deploy.py; the bad model is too slow, not wrong."""
    slow = folder / "slow"
    slow.mkdir()
    (slow / "inference.py").write_bytes(SLOW)
    base = "[instance]\ncount = 2\n"
    canary = '[update]\npolicy = "canary"\nwait_seconds = 1800\nlatency_ms = 300\n'
    written(folder, "life", on_cloud, base)
    cloud.deploy(folder, "--poll", "0.2")
    first = cloud.settled("life")["EndpointConfigName"]
    caller = Caller(cloud, "life")
    caller.start()
    try:
        written(folder, "life", on_cloud, base)
        cloud.deploy(folder, "--model", "two.joblib", "--poll", "0.2")
        assert cloud.invoke("life") == b"2\n"
        assert caller.taken()[1] == []

        written(folder, "life", on_cloud, base + canary, code="slow")
        failed = cloud.deploy(folder, "--poll", "0.2", code=1)
        assert "was rolled back" in failed.stderr
        assert "ALARM: life-latency" in failed.stderr, failed.stderr
        assert cloud.invoke("life") == b"2\n"
        assert caller.taken()[1] == []

        written(folder, "life", on_cloud, base)
        cloud.deploy(folder, "rollback", "--poll", "0.2")
        assert cloud.settled("life")["EndpointConfigName"] == first
        assert caller.taken()[1] == []

        cloud.deploy(folder, "autoscale", "--min", "2", "--max", "3", "--target", "100")
        until(lambda: len(cloud.containers()) == 3, 60)
        cloud.settled("life")
        time.sleep(1)
        assert caller.taken()[1] == []

        cloud.fault(fault="container-dies", endpoint="life")
        until(lambda: len(cloud.containers()) == 3, 60)
        time.sleep(2)
        calls, failures = caller.taken()
        # One caller: at most one call was with the container, and one found it half gone.
        assert (calls > 20, len(failures) <= 2) == (True, True), failures
        assert all("closed before it answered" in failure for failure in failures)
    finally:
        caller.end()
    cloud.deploy(folder, "delete", "--yes", "--poll", "0.2")
    until(lambda: not cloud.containers(), 120)


def test_a_refusal_of_the_container_reaches_the_caller_as_model_error(
    cloud: LocalCloud, good: str
) -> None:
    cloud.config("errors", good)
    cloud.endpoint("errors", "errors")
    with pytest.raises(ClientError) as told:
        cloud.invoke("errors", b"1,2")
    assert told.value.response["OriginalStatusCode"] == 400
    until(lambda: counted(cloud, "errors", "Invocation4XXErrors", "AllTraffic") == 1)
    gone(cloud, "errors")
