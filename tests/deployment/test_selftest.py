"""python deploy.py selftest: what it says of endpoints that answer well, and of others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployment import selftest, survey
from deployment.errors import ApiError, Failed, ModelAnswered, Refused
from deployment.selftest import Asked
from deployment.session import Words
from deployment.state import Endpoint
from skserve.config import MIB, Config
from skserve.errors import ServeError
from skserve.formats.catalogue import DECODERS
from skserve.inference.calls import Call
from skserve.inference.model import Model
from tests.deployment.conftest import Shell
from tests.deployment.local_cloud import running
from tests.test_image import engine, required

TYPES = {"columns": [{"type": "number"}] * 4}
WHOLE_BODY = "def predict_fn(X, model):\n    return X.mean(axis=0)[0] + X[:, 0]\n"


class Served:
    """An account with one endpoint, answered by the model itself, without SageMaker and HTTP."""

    region = "eu-west-1"

    def __init__(self, folder: Path) -> None:
        self.model = Model.load(folder, Config())

    def call(self, service: str, operation: str, **named: Any) -> dict[str, Any]:
        assert (service, operation) == ("sagemaker-runtime", "invoke_endpoint")
        if len(named["Body"]) > 25 * MIB:
            raise ApiError("Request 26214401 bytes is too large", "ValidationError", operation)
        asked = Call(
            named["Body"],
            named.get("ContentType", ""),
            named.get("Accept", ""),
            named.get("CustomAttributes", ""),
        )
        try:
            reply = self.model.invoke(asked)
        except ServeError as error:
            body = json.dumps({"error": {"message": str(error)}})
            raise ModelAnswered(str(error), operation, error.status, body) from None
        return {"Body": reply.body, "ContentType": reply.media_type}


@pytest.fixture
def judge(
    models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Callable[..., tuple[int, dict[str, dict[str, str]]]]:
    """Return a function that gives the exit code and the checks by name."""

    def judged(script: str = "", toml: str = "", **files: Any) -> tuple[int, dict[str, Any]]:
        folder = shutil.copytree(models("iris"), tmp_path / "model")
        if script:
            (folder / "code").mkdir()
            (folder / "code" / "inference.py").write_text(script)
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_text(json.dumps(content))
        (tmp_path / "endpoint.toml").write_text(f'name = "iris"\nmodel = "model"\n{toml}')
        monkeypatch.setattr(selftest, "connect", lambda settings: Served(folder))
        endpoint = Endpoint("iris", "arn", "InService", "config")
        monkeypatch.setattr(survey, "find_endpoint", lambda cloud, name: endpoint)
        words = Words(file=tmp_path / "endpoint.toml", machine=True)
        code = selftest.selftest(words, Asked())
        said = json.loads(capsys.readouterr().out)
        return code, {check["check"]: check for check in said["checks"]}

    return judged


def test_a_good_endpoint_passes_every_check(judge: Any) -> None:
    code, checks = judge(schema__json=TYPES)

    assert (code, {check["word"] for check in checks.values()}) == (0, {"PASS"})
    assert {"formats in", "formats out", "one row beside many", "payload limit"} <= set(checks)
    assert checks["formats in"]["sentence"].startswith("10 forms")


def test_what_our_training_leaves_says_what_the_model_takes(judge: Any) -> None:
    code, checks = judge(skserve__json={"n_features": 4, "feature_names": None})

    assert (code, checks["rows"]["word"]) == (0, "PASS")


def test_where_nothing_says_it_the_smoke_call_is_all_there_is(judge: Any) -> None:
    code, checks = judge(toml='[smoke]\nbody = "5.1,3.5,1.4,0.2"\n')

    assert code == 0
    assert checks["rows"]["sentence"] == "smoke.csv is answered, as it is."


def test_without_any_row_it_warns(judge: Any) -> None:
    code, checks = judge()

    assert code == 0
    assert (checks["rows"]["word"], checks["rows"]["way_out"]) == (
        "WARN",
        "Give rows that it takes: --rows FILE.",
    )


def test_an_answer_that_depends_on_its_neighbours_fails(judge: Any) -> None:
    code, checks = judge(WHOLE_BODY, schema__json=TYPES)

    assert code == 1
    assert [name for name, check in checks.items() if check["word"] == "FAIL"] == [
        "one row beside many"
    ]


def test_a_decoder_that_shifts_a_column_fails(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read = DECODERS["text/csv"]

    def shifted(*given: Any) -> Any:
        decoded = read(*given)
        rows = decoded.table.rows[:, ::-1]
        return decoded._replace(table=decoded.table._replace(rows=rows))

    monkeypatch.setitem(DECODERS, "text/csv", shifted)
    code, checks = judge(schema__json=TYPES)

    assert code == 1
    assert checks["formats in"]["sentence"].startswith("text/csv: row 1 has ")


def test_what_cannot_be_called_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "endpoint.toml"
    path.write_text('name = "iris"\n[instance]\n[async]\noutput = "s3://b/o"\n')
    with pytest.raises(Refused, match="asynchronous endpoint puts them into S3"):
        selftest.selftest(Words(file=path), Asked())

    path.write_text('name = "iris"\n')
    with pytest.raises(Refused, match="--target-model"):
        selftest.selftest(Words(file=path), Asked(target="b"))

    served = type("Cloud", (), {"region": "eu-west-1"})()
    monkeypatch.setattr(selftest, "connect", lambda settings: served)
    monkeypatch.setattr(survey, "find_endpoint", lambda cloud, name: None)
    with pytest.raises(Failed, match="the endpoint iris is not in eu-west-1"):
        selftest.selftest(Words(file=path), Asked())


def test_the_word_is_there(shell: Shell) -> None:
    assert "--target-variant" in shell("selftest", "--help").out


@pytest.mark.soak
@pytest.mark.docker
@pytest.mark.skipif(not required() and not engine(), reason="no Docker engine")
def test_a_real_endpoint_is_judged_through_the_runtime(
    image: str, models: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(models("named"), tmp_path / "model")  # whose columns can change places
    columns = [{"name": name, "type": "number"} for name in "abc"]
    (tmp_path / "model" / "schema.json").write_text(json.dumps({"columns": columns}))
    with running(tmp_path / "cloud") as cloud:
        cloud.account()
        uri = cloud.push(image)
        (tmp_path / "endpoint.toml").write_text(
            f'name = "iris"\nmodel = "model"\nimage = "{uri}"\nrole = "skserve"\nverify = true\n'
        )
        cloud.deploy(tmp_path, "--poll", "0.1")

        said = json.loads(cloud.deploy(tmp_path, "selftest", "--json").stdout)
        text = cloud.deploy(tmp_path, "selftest", "--rows", "model/schema.json", code=1).stdout

        assert (said["FAIL"], said["WARN"]) == (0, 0)
        assert said["PASS"] > 8
        assert "FAIL  rows" in text
        cloud.deploy(tmp_path, "delete", "--yes", "--poll", "0.1")
