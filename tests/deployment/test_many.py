"""An endpoint of many models: what is planned, and the words that add and remove them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from deployment import plan, policies
from deployment.settings import Settings
from deployment.state import Source, State
from deployment.step import Call
from tests.deployment.conftest import (
    ACCOUNT,
    REGION,
    Moto,
    Shell,
    make_image,
    make_role,
    save_model,
    settings_file,
)
from tests.deployment.test_plan import fits, target

BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"
PREFIX = "skserve/wine/models/"
MANY = """
[models]
[smoke]
body = "1,2"
target = "b.tar.gz"
"""


def many_settings(**models: object) -> Settings:
    smoke = {"body": "1,2", "target": "b.tar.gz"}
    given = {"name": "wine", "image": "x", "role": "skserve", "models": models, "smoke": smoke}
    return Settings.model_validate(given)


@pytest.mark.parametrize(("cache", "said"), [(True, "Enabled"), (False, "Disabled")])
def test_the_plan_fits_the_service_and_names_the_prefix(cache: bool, said: str) -> None:
    uri = f"s3://{BUCKET}/{PREFIX}"
    wanted = dataclasses.replace(
        target(), settings=many_settings(cache=cache), source=Source(uri, "many", uri)
    )
    calls = [s for s in plan.deploy(wanted, State()).steps if isinstance(s, Call)]
    for call in calls:
        fits(call)
    (model,) = [call for call in calls if call.operation == "create_model"]
    container = model.arguments["PrimaryContainer"]
    assert container["Mode"] == "MultiModel"
    assert container["ModelDataUrl"] == uri
    assert container["MultiModelConfig"] == {"ModelCacheSetting": said}
    assert calls[0].operation == "create_bucket"
    assert calls[-1].arguments["TargetModel"] == "b.tar.gz"


def test_the_role_may_read_a_prefix_of_ones_own() -> None:
    given = policies.permissions(many_settings(prefix="s3://b/all/"), "aws", REGION, ACCOUNT)
    reads = {one["Sid"]: one["Resource"] for one in given["Statement"]}
    assert "arn:aws:s3:::b/all/*" in reads["Read"]
    assert "arn:aws:s3:::b" in reads["List"]


def test_models_come_and_go_without_touching_the_endpoint(
    moto: Moto, shell: Shell, folder: Path
) -> None:
    make_role(moto)
    settings_file(folder, make_image(moto), MANY, model="")
    save_model(folder / "b.joblib", 2.0)

    dry = json.loads(shell("add-model", "b.joblib", "--dry-run", "--json").out)
    assert [step["operation"] for step in dry] == ["create_bucket", "put_object"]
    assert shell("add-model", "b.joblib", "--json").json == {"model": "b.tar.gz", "changed": True}
    assert shell("add-model", "model.joblib", "--as", "team/a", "--json").json["changed"]
    assert not shell("add-model", "b.joblib", "--json").json["changed"]
    made = shell.change("--json").json
    assert made["changed"]
    before = len(moto.sent)

    listed = shell("list-models", "--json").json
    assert [one["model"] for one in listed] == ["b.tar.gz", "team/a.tar.gz"]
    assert shell("invoke", "--data", "1,2", "--target-model", "team/a.tar.gz").code == 0
    assert "list-models" in shell("invoke", "--data", "1,2", code=2).err
    save_model(folder / "b.joblib", 3.0)
    refused = shell("add-model", "b.joblib", code=3)
    assert "another model b.tar.gz already" in refused.err
    assert "--as NAME" in refused.err
    assert shell("add-model", "b.joblib", "--force", "--json").json["changed"]
    assert "needs a yes" in shell("remove-model", "b", code=2).err
    assert shell("remove-model", "b", "--yes", "--json").json["changed"]
    assert not shell("remove-model", "b", "--yes", "--json").json["changed"]
    assert len(moto.sent) == before, "the endpoint was not touched"
    assert not shell.change("--json").json["changed"]
    shell("transform", "x.csv", code=3)


def test_an_endpoint_of_one_model_has_no_others(moto: Moto, shell: Shell, folder: Path) -> None:
    make_role(moto)
    settings_file(folder, make_image(moto))
    for words in (["add-model", "model.joblib"], ["remove-model", "x"], ["list-models"]):
        assert "endpoint of one model" in shell(*words, code=2).err
    shell("invoke", "--data", "1", "--target-model", "x", code=2)
    settings_file(folder, "x", MANY, model="")
    assert "no name of a model" in shell("add-model", "model.joblib", "--as", "../x", code=2).err
