"""`deploy.py train`: the job, its log, and the hand-over of its model, against moto's server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployment import training, training_request
from deployment.settings import Settings
from deployment.step import Call
from skserve.training import metrics
from tests.deployment.conftest import ROLE, Moto, Shell, make_image, make_role, settings_file
from tests.deployment.test_plan import fits

FOREST = "estimator=sklearn.ensemble.RandomForestClassifier"


@pytest.fixture
def image(moto: Moto) -> str:
    make_role(moto)
    return make_image(moto)


@pytest.fixture
def wines(folder: Path) -> Path:
    """A newcomer's data beside the model."""
    path = folder / "wine.csv"
    path.write_text("alcohol,class\n1,2\n")
    return path


def created(moto: Moto) -> dict[str, Any]:
    return dict(next(given for name, given in moto.sent if name == "CreateTrainingJob"))


def test_an_estimator_and_a_file_make_a_job(
    image: str, moto: Moto, shell: Shell, folder: Path, wines: Path
) -> None:
    settings_file(folder, image)

    ran = shell.change("train", "--channel", "train=wine.csv", "--hyperparameter", FOREST,
                       "--hyperparameter", "target=class", "--job-name", "wine-1")  # fmt: skip

    home = f"s3://sagemaker-eu-west-1-{ROLE.split(':')[4]}/skserve/wine/train"
    assert ran.out.strip() == f"{home}/wine-1/output/model.tar.gz"
    assert ran.err.count("| validation_accuracy=0.97;") == 1
    assert "wine-1: Training" in ran.err
    job = created(moto)
    assert job["HyperParameters"] == {
        "estimator": "sklearn.ensemble.RandomForestClassifier",
        "target": "class",
    }
    assert job["AlgorithmSpecification"]["TrainingImage"].count("@sha256:") == 1
    (channel,) = job["InputDataConfig"]
    assert channel["DataSource"]["S3DataSource"]["S3Uri"] == f"{home}/wine-1/input/train/"
    assert job["EnableNetworkIsolation"]
    bucket = home.split("/")[2]
    stored = moto.client("s3").get_object(
        Bucket=bucket, Key="skserve/wine/train/wine-1/input/train/wine.csv"
    )
    assert stored["Body"].read() == wines.read_bytes()


def test_train_then_deploy_makes_the_endpoint_from_the_jobs_model(
    image: str, moto: Moto, shell: Shell, folder: Path, wines: Path
) -> None:
    settings_file(folder, image, '[train.channels]\ntrain = "wine.csv"\n'
                  '[train.hyperparameters]\nestimator = "sklearn.svm.SVC"\nC = 2\n'
                  'target = "class"\n',
                  model="", code="code")  # fmt: skip

    ran = shell.change("train", "--then-deploy", "--job-name", "wine-2", "--json")

    assert ran.json["changed"]
    model = next(given for name, given in moto.sent if name == "CreateModel")
    assert model["PrimaryContainer"]["ModelDataUrl"].endswith("wine-2/output/model.tar.gz")
    assert created(moto)["HyperParameters"]["C"] == "2"
    assert "InService" in shell("status").out


def test_a_script_travels_as_a_channel(image: str, moto: Moto, shell: Shell, folder: Path) -> None:
    (folder / "code").mkdir()
    (folder / "code" / "train.py").write_text("print('x')")
    settings_file(folder, image, '[train]\nprogram = "train.py"\ncode = "code"\n'
                  '[train.channels]\ntrain = "s3://data/wines/"\n')  # fmt: skip

    shell.change("train", "--train-instance", "ml.c5.xlarge", "--spot")

    job = created(moto)
    assert job["HyperParameters"] == {
        "sagemaker_program": "train.py",
        "sagemaker_submit_directory": "/opt/ml/input/data/code/sourcedir.tar.gz",
    }
    channels = {one["ChannelName"]: one["DataSource"]["S3DataSource"]["S3Uri"]
                for one in job["InputDataConfig"]}  # fmt: skip
    assert channels["train"] == "s3://data/wines/"
    assert channels["code"].endswith("/input/code/")
    assert job["ResourceConfig"]["InstanceType"] == "ml.c5.xlarge"
    assert job["EnableManagedSpotTraining"]
    assert job["CheckpointConfig"]["S3Uri"].endswith("/checkpoints")
    stopping = job["StoppingCondition"]
    assert stopping["MaxWaitTimeInSeconds"] >= stopping["MaxRuntimeInSeconds"]


def test_a_failed_job_tells_its_reason(
    image: str, moto: Moto, shell: Shell, folder: Path, wines: Path
) -> None:
    settings_file(folder, image)
    moto.next(outcomes=["failed"])

    ran = shell.change("train", "--channel", "train=wine.csv", "--hyperparameter", FOREST,
                       "--then-deploy", code=1)  # fmt: skip

    assert "train.py failed: ValueError: no wine" in ran.err
    assert "| fitting" in ran.err
    assert not any(name == "CreateModel" for name, _ in moto.sent)


def test_a_job_is_stopped_and_followed_by_its_name(
    image: str, moto: Moto, shell: Shell, folder: Path, wines: Path, monkeypatch: Any
) -> None:
    settings_file(folder, image)
    moto.next(looks=50)

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Followed, "lines", interrupted)
        ran = shell.change("train", "--channel", "train=wine.csv", "--hyperparameter", FOREST,
                           "--job-name", "long", code=1)  # fmt: skip
    assert "the job long goes on by itself, and bills until it ends" in ran.err

    ran = shell.change("train", "--stop", "long")

    assert "long was stopped" in ran.err
    assert shell.change("train", "--follow", "long").out == ran.out


def test_a_refused_job_leaves_no_uploads(
    image: str, moto: Moto, shell: Shell, folder: Path, wines: Path
) -> None:
    settings_file(folder, image)
    moto.fault("CreateTrainingJob", "ResourceLimitExceeded", "no quota for ml.m5.large")

    ran = shell("train", "--channel", "train=wine.csv", "--hyperparameter", FOREST, code=1)

    assert "no quota for ml.m5.large" in ran.err
    assert moto.client("s3").list_buckets()["Buckets"] == []


def test_a_dry_run_prints_the_job_and_makes_nothing(
    image: str, moto: Moto, shell: Shell, folder: Path, wines: Path
) -> None:
    settings_file(folder, image)

    ran = shell("train", "--channel", "train=wine.csv", "--hyperparameter", FOREST, "--dry-run",
                "--json")  # fmt: skip

    assert [step["operation"] for step in ran.json] == [
        "create_bucket", "put_object", "create_training_job"]  # fmt: skip
    assert "CreateTrainingJob" not in moto.calls
    assert moto.client("s3").list_buckets()["Buckets"] == []


def test_what_has_the_name_of_another_job_or_no_data_is_refused(
    image: str, moto: Moto, shell: Shell, folder: Path, wines: Path
) -> None:
    settings_file(folder, image)
    (folder / "empty").mkdir()
    words = ("train", "--hyperparameter", FOREST, "--job-name", "wine-1", "--channel")
    shell.change(*words, "train=wine.csv")

    (folder / "other.csv").write_text("1\n")

    again = shell(*words, "train=other.csv", code=3)
    empty = shell(*words[:3], "--channel", "train=empty", code=None)
    unknown = shell("train", "--follow", "nobody", code=1)

    assert "there is a job wine-1 already" in again.err
    assert f"channel train: there is nothing in {folder / 'empty'}" in empty.err
    assert "nobody" in unknown.err
    bucket = f"sagemaker-eu-west-1-{ROLE.split(':')[4]}"
    stored = moto.client("s3").list_objects_v2(Bucket=bucket, Prefix="skserve/wine/train/")
    kept = [one["Key"].rpartition("/")[2] for one in stored["Contents"] if "/input/" in one["Key"]]
    assert kept == ["wine.csv"]


REFUSED = {
    (): "nothing says what to train",
    ("--hyperparameter", FOREST): "training without code reads the channel train",
    ("--set", 'train.code="code"'): "train.program must name the script",
    ("--set", 'train.program="x.py"'): "train.code must name the folder",
    (
        "--hyperparameter",
        FOREST,
        "--train-instance",
        "ml.m6g.large",
    ): "training has no ml.m6g.large",
    ("--hyperparameter", FOREST, "--hyperparameter", "x=" + "y" * 2501): "x: a name has 256",
    ("--hyperparameter", FOREST, "--set", "train.wait_seconds=9"): "is for spot instances",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_could_not_work_is_refused(
    image: str, shell: Shell, folder: Path, words: tuple[str, ...]
) -> None:
    settings_file(folder, image)

    assert REFUSED[words] in shell("train", *words, code=3).err


FULL = {
    "name": "wine",
    "vpc": {"subnets": ["subnet-1"], "security_groups": ["sg-1"]},
    "kms": {"volume": "key-1", "output": "key-2", "bucket": "key-3"},
    "tags": {"team": "wine"},
    "train": {
        "channels": {"train": "s3://b/train.csv", "validation": "s3://b/v/"},
        "hyperparameters": {"estimator": ["sklearn.svm.SVC"], "C": 0.5, "note": "ü"},
        "content_types": {"validation": "text/csv"},
        "count": 2,
        "spot": True,
        "wait_seconds": 90000,
        "checkpoints": "s3://b/checkpoints",
        "metrics": {"score": "score=([0-9.]+)"},
        "output": "s3://b/out",
        "environment": {"SKSERVE_MODEL_HOSTS": "all"},
        "encrypt_traffic": True,
    },
}
LEAST = {"name": "wine", "train": {"hyperparameters": {"estimator": "sklearn.svm.SVC"},
                                   "channels": {"train": "s3://b/t"}}}  # fmt: skip


@pytest.mark.parametrize("given", [FULL, LEAST])
def test_every_job_is_valid_under_botocores_model(given: dict[str, Any]) -> None:
    settings = Settings.model_validate(given)
    assert settings.train is not None
    place = training_request.Place(
        "eu-west-1", "1" * 12, ROLE, "image", "bucket", True, "s3://bucket/x"
    )

    document = training_request.request(settings, settings.train, place, "wine-1")

    fits(Call("sagemaker", "create_training_job", document, "x"))
    if given is FULL:
        assert document["VpcConfig"]["Subnets"] == ["subnet-1"]
        assert document["ResourceConfig"]["VolumeKmsKeyId"] == "key-1"
        assert document["OutputDataConfig"]["KmsKeyId"] == "key-2"
        assert json.loads(document["HyperParameters"]["estimator"]) == ["sklearn.svm.SVC"]
        assert document["InputDataConfig"][0]["ContentType"] == "text/csv"


def test_every_metric_of_training_without_code_is_defined() -> None:
    printed = {f"validation_{name}" for names in metrics.METRICS.values() for name in names}

    assert printed == {name for name in training_request.METRICS if name.startswith("validation_")}
