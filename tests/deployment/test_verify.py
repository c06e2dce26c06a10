"""`verify = true`: the container gets the digest of what it will find in its model's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployment import package, resolve
from deployment.errors import Refused
from deployment.settings import load
from skserve import archive, digest
from tests.deployment.conftest import Moto, Shell, make_image, make_role, save_model, settings_file


@pytest.mark.parametrize("code", [False, True])
def test_the_digest_of_an_archive_is_that_of_the_folder_it_is_unpacked_to(
    folder: Path, tmp_path: Path, code: bool
) -> None:
    (folder / "code").mkdir()
    (folder / "code" / "inference.py").write_text("def predict_fn(data, model): ...\n")
    (folder / "code" / "ä b.txt").write_text("x")
    (folder / ".DS_Store").write_text("litter")
    (folder / "same.txt").symlink_to("model.joblib")
    source = folder if code else folder / "model.joblib"

    packed = package.pack(source, tmp_path / "a.tar.gz")
    archive.extract(packed.path, tmp_path / "model")

    assert packed.tree == digest.of_folder(tmp_path / "model")
    assert package.verify(packed.path).tree == packed.tree


def test_pack_prints_it(shell: Shell) -> None:
    ran = shell("pack", "model.joblib")

    assert ran.out.endswith(f"\nSKSERVE_MODEL_SHA256={package.verify(Path('model.tar.gz')).tree}\n")


def test_deploying_sets_it_for_each_model_where_the_settings_ask(
    moto: Moto, shell: Shell, folder: Path
) -> None:
    make_role(moto)
    save_model(folder / "other.joblib", 2.0)
    more = 'verify = true\n[variants.other]\nmodel = "other.joblib"\nweight = 1.0\n'
    settings_file(folder, make_image(moto), more)

    shell.change()

    sagemaker = moto.client("sagemaker")
    seen = {
        sagemaker.describe_model(ModelName=model["ModelName"])["PrimaryContainer"]["Environment"][
            "SKSERVE_MODEL_SHA256"
        ]
        for model in sagemaker.list_models()["Models"]
    }
    packed = [
        package.pack(folder / f"{name}.joblib", folder / f"{name}.tar.gz").tree
        for name in ("model", "other")
    ]
    assert seen == set(packed)


UNKNOWN = {
    'model = "s3://b/model.tar.gz"\n': "the digest of s3://b/model.tar.gz is not known here",
    "[models]\n": "the digest of many models is not known here",
    '[shadow]\nmodel = "s3://b/m/"\n': "the digest of s3://b/m/ is not known here",
}


@pytest.mark.parametrize("more", UNKNOWN)
def test_what_is_not_packed_here_cannot_be_verified(folder: Path, more: str) -> None:
    model = "" if "s3://b/model" in more or "[models]" in more else 'model = "model.joblib"\n'
    path = folder / "endpoint.toml"
    path.write_text(f'name = "wine"\nimage = "i"\nrole = "r"\nverify = true\n{model}{more}')

    with pytest.raises(Refused, match=UNKNOWN[more]):
        resolve.target(None, load(path, {}), folder)
