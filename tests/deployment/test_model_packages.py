"""Registered models: a version deployed, and a version registered after training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployment import plan
from deployment.state import Source, State
from deployment.step import Call
from tests.deployment.conftest import ACCOUNT, REGION, Moto, Shell, make_image, make_role
from tests.deployment.conftest import settings_file as written
from tests.deployment.test_plan import fits, target

GROUP = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/wine"
TRAIN = """[train]
register = "wine"
hyperparameters = {estimator = "sklearn.svm.SVC"}
channels = {train = "s3://bucket/wine.csv"}
"""


@pytest.fixture
def image(moto: Moto) -> str:
    make_role(moto)
    moto.client("s3").create_bucket(
        Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    moto.client("s3").put_object(Bucket="bucket", Key="m.tar.gz", Body=b"x")
    return make_image(moto, labels={"skserve.scikit-learn": "1.9"})


def registered(moto: Moto, image: str, *statuses: str) -> None:
    sagemaker = moto.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="wine")
    for status in statuses:
        sagemaker.create_model_package(
            ModelPackageGroupName="wine", ModelApprovalStatus=status, InferenceSpecification={
                "Containers": [{"Image": image, "ModelDataUrl": "s3://bucket/m.tar.gz"}],
                "SupportedContentTypes": ["text/csv"], "SupportedResponseMIMETypes": ["text/csv"],
            })  # fmt: skip


def settings_file(folder: Path, package: str, more: str = "") -> None:
    written(folder, "", more, model="", model_package=package)


def test_the_newest_approved_version_of_a_group_is_deployed(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    registered(moto, image, "Approved", "Approved", "PendingManualApproval")
    settings_file(folder, "wine", '[smoke]\nbody = "1,2"\n')

    done = shell.change()

    sent = dict(moto.sent)
    assert sent["CreateModel"]["PrimaryContainer"]["ModelPackageName"] == f"{GROUP}/2"
    assert "Image" not in sent["CreateModel"]["PrimaryContainer"]
    assert "model package: model-package/wine/2 is approved" in done.err
    assert "image: linux/amd64" in done.err
    assert "answered 1" in done.err
    assert "nothing to change" in shell.change().out
    moto.client("sagemaker").update_model_package(
        ModelPackageArn=f"{GROUP}/3", ModelApprovalStatus="Approved"
    )
    changed = shell("plan").out.split("because of:")[1]
    assert f"ModelPackageName: {GROUP}/2 -> {GROUP}/3\n" in changed
    assert changed.count("->") == 1


@pytest.mark.parametrize("named", ["wine/1", f"{GROUP}/1"])
def test_a_version_that_is_not_approved_is_refused(
    named: str, image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    registered(moto, image, "PendingManualApproval")
    settings_file(folder, named)

    said = " ".join(shell.change(code=3).err.split())

    assert f"{GROUP}/1 is PendingManualApproval" in said
    assert f"--model-package-arn {GROUP}/1" in said
    settings_file(folder, "wine")
    assert "no version of the model package group wine is approved" in shell.change(code=3).err
    settings_file(folder, "wine/7")
    assert "there is no model package" in shell.change(code=3).err
    settings_file(folder, "beer")
    assert "there is no model package group beer" in shell.change(code=3).err


def test_training_registers_each_jobs_model_once(
    image: str, moto: Moto, shell: Shell, folder: Path
) -> None:
    written(folder, image, TRAIN)

    done = shell.change("train", "--job-name", "first", "--json")
    again = shell.change("train", "--follow", "first", "--json")

    assert done.json["model_package"] == again.json["model_package"] == f"{GROUP}/1"
    assert "update-model-package" in done.err
    sagemaker = moto.client("sagemaker")
    found = sagemaker.describe_model_package(ModelPackageName=f"{GROUP}/1")
    assert found["ModelApprovalStatus"] == "PendingManualApproval"
    (container,) = found["InferenceSpecification"]["Containers"]
    assert container["ModelDataUrl"] == done.json["model"]
    assert "@sha256:" in container["Image"]
    assert found["CustomerMetadataProperties"]["TrainingJob"] == "first"
    shell.change("train", "--job-name", "second", "--set", "train.approved=true")
    assert sagemaker.describe_model_package(ModelPackageName=f"{GROUP}/2")[
        "ModelApprovalStatus"] == "Approved"  # fmt: skip
    # The version deploys, and a flag that names a model wins over the file's package.
    settings_file(folder, "wine")
    shell.change()
    assert "ModelDataUrl" in shell("plan", "--model", "model.joblib", "--image", image).out


def test_the_calls_fit_the_service(image: str, moto: Moto, shell: Shell, folder: Path) -> None:
    written(folder, image, TRAIN)
    shell.change("train")
    for name in ("CreateModelPackage", "CreateModelPackageGroup"):
        arguments = dict(moto.sent)[name]
        arguments.pop("ClientToken", None)
        operation = "create_model_package" + ("_group" if name.endswith("Group") else "")
        fits(Call("sagemaker", operation, arguments, ""))
    given: dict[str, Any] = {"model": "", "model_package": "wine"}
    wanted = target(**given)
    source = Source(f"{GROUP}/2", "package", f"{GROUP}/2")
    planned = plan.deploy(type(wanted)(**{**vars(wanted), "source": source}), State())
    for step in planned.steps:
        if isinstance(step, Call):
            fits(step)
