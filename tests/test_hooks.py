"""Scripts written for AWS's scikit-learn container, called through the model's own line."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skserve.config import Config
from skserve.errors import HookError, ModelFault, ServeError, StartError
from skserve.inference import hooks
from skserve.inference.calls import Call, Reply
from skserve.inference.context import Context
from skserve.inference.model import Model
from skserve.inference.script_reply import finish

SCRIPTS = Path(__file__).parent / "scripts"
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
CSV = "".join(",".join(map(str, row)) + "\n" for row in ROWS)


@pytest.fixture(autouse=True)
def _clean_imports():
    """Let each test import its own inference.py."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("inference", None)


def load(folder: Path, **settings: object) -> Model:
    return Model.load(folder, Config(**settings))


def ask(model: Model, body: str | bytes, content_type: str, accept: str = "", **more: str) -> Reply:
    data = body.encode() if isinstance(body, str) else body
    return model.invoke(Call(data, content_type, accept, **more))


def npy(values: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("body", "content_type", "accept", "answer", "media_type"),
    [
        (json.dumps(ROWS), "application/json", "application/json", b"[0, 2]", "application/json"),
        (CSV, "text/csv", "text/csv", b"0\n2\n", "text/csv"),
        (CSV, "text/csv; charset=utf-8", "*/*", b"[0, 2]", "application/json"),
        (npy(ROWS), "application/x-npy", "text/csv, application/json", b"0\n2\n", "text/csv"),
    ],
)
def test_the_documented_four_functions_run(
    model_with_script, body, content_type, accept, answer, media_type
):
    model = load(model_with_script(SCRIPTS / "docs_iris"))

    reply = ask(model, body, content_type, accept)

    assert (reply.status, reply.body, reply.media_type) == (200, answer, media_type)


def test_the_abalone_featuriser_trains_and_serves(tmp_path):
    train, model_dir = tmp_path / "train", tmp_path / "model"
    train.mkdir()
    model_dir.mkdir()
    rows = [f"{sex},0.{i},0.4,0.1,0.5,0.2,0.1,0.15,{i}" for i in range(3, 9) for sex in "MFI"]
    (train / "abalone.csv").write_text("\n".join(rows) + "\n")
    script = SCRIPTS / "abalone_featurizer" / "inference.py"
    environ = {
        "SM_OUTPUT_DATA_DIR": str(tmp_path),
        "SM_MODEL_DIR": str(model_dir),
        "SM_CHANNEL_TRAIN": str(train),
        "PYTHONPATH": str(Path(hooks.__file__).parents[2]),
    }
    subprocess.run([sys.executable, script], env=environ, check=True)
    (model_dir / "inference.py").write_text(script.read_text())

    model = load(model_dir)
    features = ask(model, "M,0.3,0.4,0.1,0.5,0.2,0.1,0.15\n", "text/csv", "application/json")
    with_label = ask(model, rows[0] + "\n", "text/csv", "text/csv")

    assert len(json.loads(features.body)["instances"][0]["features"]) == 10
    assert with_label.body.count(b",") == 10
    assert with_label.media_type.startswith("text/csv")


def test_transform_fn_stands_for_all_three(model_with_script):
    model = load(model_with_script(SCRIPTS / "transform_only"))

    as_json = json.loads(ask(model, json.dumps(ROWS), "application/json").body)
    as_csv = ask(model, CSV, "text/csv", "text/csv")

    assert as_json == {"predictions": [0, 2], "body_type": "str"}
    assert (as_csv.body, as_csv.media_type) == (b"0\n2\n", "text/csv")


def test_transform_fn_beside_one_of_the_three_is_refused(model_with_script):
    with pytest.raises(StartError, match="transform_fn together with input_fn"):
        load(model_with_script(SCRIPTS / "transform_and_trio"))


def test_arguments_are_passed_by_position(model_with_script):
    model = load(model_with_script(SCRIPTS / "both_orders"))

    answer = json.loads(ask(model, json.dumps(ROWS), "application/json").body)

    assert answer == {
        "predictions": [0, 2],
        "read_as": "application/json",
        "written_as": "application/json",
    }


def test_a_function_that_asks_for_the_context_gets_it(model_with_script):
    folder = model_with_script(SCRIPTS / "with_context")
    headers = {"X-Amzn-SageMaker-Custom-Attributes": "proba"}

    reply = ask(load(folder), json.dumps(ROWS), "application/json", headers=headers)

    answer = json.loads(reply.body)
    assert reply.media_type == "application/vnd.example+json"
    assert np.shape(answer["predictions"]) == (2, 3)
    assert answer["model_dir"] == str(folder)
    assert answer["attributes"] == "proba"


@pytest.mark.parametrize(
    ("wish", "status", "message"),
    [
        ("toolkit", 422, "msg"),
        ("generic", 400, "3 features, not 4"),
        ("format", 415, "application/json"),
        ("accept", 406, "application/json"),
        ("decode", 400, "npy"),
        ("werkzeug", 400, "no such column"),
    ],
)
def test_an_exception_with_a_status_is_the_answer(model_with_script, wish, status, message):
    model = load(model_with_script(SCRIPTS / "errors_status"))

    with pytest.raises(HookError, match=message) as raised:
        ask(model, json.dumps(wish), "application/json")
    assert raised.value.status == status


@pytest.mark.parametrize("wish", ["value", "missing"])
def test_any_other_exception_is_ours_to_hide(model_with_script, wish):
    model = load(model_with_script(SCRIPTS / "errors_status"))

    with pytest.raises(ModelFault) as raised:
        ask(model, json.dumps(wish), "application/json")
    assert "secret" not in raised.value.message + raised.value.hint


def test_a_response_of_the_script_keeps_its_status(model_with_script):
    model = load(model_with_script(SCRIPTS / "errors_status"))

    reply = ask(model, '"response"', "application/json")

    assert reply.status == 418
    assert json.loads(reply.body) == {"error": "teapot"}


ALONE = """
import joblib, os
def {function}({arguments}):
    {body}
"""


@pytest.mark.parametrize(
    ("function", "arguments", "body", "answer"),
    [
        (
            "model_fn",
            "model_dir",
            "return joblib.load(os.path.join(model_dir, 'model.joblib'))",
            [0, 2],
        ),
        ("input_fn", "body, kind", "return [[6.7, 3.0, 5.2, 2.3]]", [2]),
        ("predict_fn", "data, model", "return data.shape", [2, 4]),
        (
            "predict_fn",
            "data, model",
            "return [type(data).__name__, str(data.dtype)]",
            ["ndarray", "float64"],
        ),
        ("output_fn", "prediction, accept", "return {'sum': int(prediction.sum())}", {"sum": 2}),
        ("output_fn", "prediction, accept", "return prediction + 1", [1, 3]),
        ("output_fn", "prediction, accept", "return '[7]'", [7]),
        ("output_fn", "prediction, accept", "return b'[8]', 'application/json'", [8]),
        ("output_fn", "prediction, accept, threshold=0.5", "return [threshold]", [0.5]),
        ("pre_model_fn", "model_dir", "os.environ['SEEN_BY_TEST'] = model_dir", [0, 2]),
    ],
)
def test_each_function_may_come_alone(model_with_script, function, arguments, body, answer):
    script = ALONE.format(function=function, arguments=arguments, body=body)

    reply = ask(load(model_with_script(script)), json.dumps(ROWS), "application/json")

    assert json.loads(reply.body) == answer


@pytest.mark.parametrize(
    ("returned", "accept", "body"),
    [
        ("'text'", "text/csv", b"text"),
        ("[1, 2]", "text/csv", b"1\n2\n"),
        ("__import__('pandas').DataFrame({'a': [1, 2], 'b': [3, 4]})", "text/csv", b"1,3\n2,4\n"),
        ("__import__('numpy').array([1.5, float('nan')])", "application/json", b"[1.5,null]"),
    ],
)
def test_what_output_fn_returns_is_written_as_accepted(model_with_script, returned, accept, body):
    script = f"def output_fn(prediction, accept):\n    return {returned}\n"

    reply = ask(load(model_with_script(script)), json.dumps(ROWS), "application/json", accept)

    assert (reply.body, reply.media_type) == (body, accept)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", "str"),
        ("Application/JSON; charset=utf-8", "str"),
        ("text/csv;header=absent", "str"),
        ("application/x-npy", "bytes"),
        ("text/plain", "bytes"),
        ("", "str"),
    ],
)
def test_the_body_is_text_for_json_and_csv(model_with_script, content_type, expected):
    script = "def input_fn(body, kind): return [type(body).__name__, kind]\n"
    script += "def predict_fn(data, model): return data\n"

    reply = ask(load(model_with_script(script)), b"1", content_type)

    bare = content_type.split(";")[0].lower() or "application/json"
    assert json.loads(reply.body) == [expected, bare]


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("import no_such_module", "imports 'no_such_module', which is not installed"),
        ("1 / 0", r"cannot be imported: ZeroDivisionError.*inference.py, line 1"),
        ("def input_fn(", r"cannot be imported: SyntaxError: .* \(inference.py, line 1\)$"),
        ("def input_fn(): pass", "input_fn takes 0 arguments"),
        ("def predict_fn(a, b, c, d): pass", "predict_fn takes 4 arguments"),
        ("model_fn = 5", "model_fn in inference.py is not a function"),
        ("def model_fn(d):\n  raise KeyError('x')", "model_fn failed: KeyError.*line 2"),
    ],
)
def test_a_broken_script_stops_the_start(model_with_script, script, sentence):
    with pytest.raises(StartError, match=sentence):
        load(model_with_script(script))


@pytest.mark.parametrize(
    ("line", "module", "package"),
    [
        ("import cgi", "cgi", "legacy-cgi"),
        ("from cgi import parse_header", "cgi", "legacy-cgi"),
        ("import telnetlib as t", "telnetlib", "standard-telnetlib"),
        ("import audioop", "audioop", "audioop-lts"),
        ("import imghdr", "imghdr", "standard-imghdr"),
        ("from pipes import quote", "pipes", "standard-pipes"),
    ],
)
def test_a_module_that_python_removed_is_told_with_its_package(
    model_with_script, monkeypatch, line, module, package
):
    monkeypatch.setitem(sys.modules, module, None)  # older Pythons still have it

    with pytest.raises(
        StartError, match=f"imports '{module}', which .* no longer has; add {package}"
    ):
        load(model_with_script(line))


def test_returning_none_is_said(model_with_script):
    model = load(model_with_script("def output_fn(prediction, accept): pass"))

    with pytest.raises(ServeError, match="returned None"):
        ask(model, json.dumps(ROWS), "application/json")


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("input_fn", "body, kind"),
        ("predict_fn", "data, model"),
        ("output_fn", "prediction, accept"),
        ("transform_fn", "model, body, kind, accept"),
    ],
)
def test_sys_exit_in_a_function_is_a_failed_request(model_with_script, function, arguments):
    script = ALONE.format(function=function, arguments=arguments, body="raise SystemExit(3)")
    model = load(model_with_script(script))

    with pytest.raises(ModelFault, match=f"The script's {function} failed"):
        ask(model, json.dumps(ROWS), "application/json")


def test_sys_exit_in_model_fn_stops_the_start_with_a_sentence(model_with_script):
    script = "import sys\ndef model_fn(model_dir): sys.exit(0)"

    with pytest.raises(StartError, match="model_fn failed: SystemExit: 0 .inference.py, line 2"):
        load(model_with_script(script))


@pytest.mark.parametrize("body", ["return data", "yield data"])
def test_an_async_function_is_refused_at_load(model_with_script, body):
    script = f"async def predict_fn(data, model): {body}"

    with pytest.raises(StartError, match="predict_fn in inference.py is async"):
        load(model_with_script(script))


PLAIN = """
import numpy as np
def predict_fn(data, model):
    return {returned}
"""


@pytest.mark.parametrize(
    ("returned", "answer"),
    [
        ("{'a': np.array([1, 2]), 'b': float('nan')}", {"a": [1, 2], "b": None}),
        ("'ok'", "ok"),
        ("7", 7),
        ("np.float64(1.5)", 1.5),
        ("[[1], [2, 3]]", [[1], [2, 3]]),
        ("(np.array([[0.5]]), np.array([[3]]))", [[[0.5]], [[3]]]),
        ("[np.array([1, 2]), np.array([3])]", [[1, 2], [3]]),
        ("np.array([1, 2])", [1, 2]),
        ("__import__('pandas').DataFrame({'a': [1], 'b': ['x']})", [[1, "x"]]),
        ("2**70", 2**70),
        ("{np.float64(1): 2}", {"1.0": 2}),
    ],
)
def test_what_predict_fn_returns_leaves_as_the_json_of_it(model_with_script, returned, answer):
    model = load(model_with_script(PLAIN.format(returned=returned)))

    reply = ask(model, json.dumps(ROWS), "application/json")

    assert json.loads(reply.body) == answer
    assert repr(json.loads(reply.body)) == repr(answer)  # 3 is not 3.0


@pytest.mark.parametrize(
    ("returned", "answer"),
    [
        ("[1, 2]", {"predictions": [1, 2]}),
        ("np.array([1, 2])", {"predictions": [1, 2]}),
        ("{'mine': 1}", {"mine": 1}),
    ],
)
def test_an_envelope_is_put_around_rows_alone(model_with_script, returned, answer):
    model = load(model_with_script(PLAIN.format(returned=returned)))

    reply = ask(model, json.dumps({"instances": ROWS}), "application/json")

    assert json.loads(reply.body) == answer


@pytest.mark.parametrize(
    ("returned", "accept", "why"),
    [
        ("{'a': 1}", "text/csv", "returned a dict, which has no rows"),
        ("'text'", "application/x-npy", "returned a str, which has no rows"),
        ("None", "application/json", "returned None"),
        ("{1, 2}", "application/json", "cannot be written as JSON: it holds a set"),
        ("[(i for i in data)]", "application/json", "it holds a generator"),
        ("[1j]", "application/json", "it holds a complex"),
    ],
)
def test_what_cannot_be_written_is_said(model_with_script, returned, accept, why):
    model = load(model_with_script(PLAIN.format(returned=returned)))

    with pytest.raises(ModelFault, match=why):
        ask(model, json.dumps(ROWS), "application/json", accept)


def test_numbers_in_csv_are_spelled_as_numbers(model_with_script):
    model = load(model_with_script(PLAIN.format(returned="[[np.float64(1.5), 'x']]")))
    objects = "np.array([[np.float64(1.5), 'x']], dtype=object)"

    assert ask(model, CSV, "text/csv", "text/csv").body == b"1.5,x\n"
    reply = finish(eval(objects), "text/csv", Context("/"), "output_fn")
    assert reply.body == b"1.5,x\n"


def test_what_the_model_refuses_of_input_fn_is_not_the_callers_fault(model_with_script):
    model = load(model_with_script("def input_fn(body, kind): return [[1.0, 2.0]]"))

    with pytest.raises(ModelFault, match="failed on what the script's input_fn returned"):
        ask(model, json.dumps(ROWS), "application/json")


def test_the_context_has_an_empty_manifest():
    assert Context("/").manifest == {}


def test_a_script_may_write_into_what_it_is_given(model_with_script):
    script = "def predict_fn(data, model):\n    data[:, 0] = 7\n    return data[:, 0]"

    reply = ask(load(model_with_script(script)), npy(ROWS), "application/x-npy")

    assert json.loads(reply.body) == [7, 7]


def test_a_model_may_work_in_place(tmp_path):
    model = make_pipeline(StandardScaler(copy=False), LinearRegression()).fit(np.eye(4), range(4))
    expected = model.predict(np.array(ROWS)).tolist()
    joblib.dump(model, tmp_path / "model.joblib")

    assert json.loads(ask(load(tmp_path), npy(ROWS), "application/x-npy").body) == expected
