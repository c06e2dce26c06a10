"""The stand-ins for AWS's two toolkits, and the scripts that use them as published."""

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import flask
import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from werkzeug.exceptions import BadRequest

from sagemaker_containers.beta import framework
from sagemaker_containers.beta.framework import content_types, encoders, env, errors, worker
from sagemaker_inference import decoder, encoder, utils
from sagemaker_inference import errors as toolkit_errors

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "tests" / "scripts"
JSON, CSV, NPY = content_types.JSON, content_types.CSV, content_types.NPY


# What an array looks like as a body, and what that body is read as.
BOTH_WAYS = [
    (JSON, [[1.5, 2.0]], "[[1.5, 2.0]]", [[1.5, 2.0]]),
    (JSON, np.array([1, 2]), "[1, 2]", [1, 2]),
    (JSON, ["a", "b"], '["a", "b"]', ["a", "b"]),
    (JSON, 3, "3", 3),
    (CSV, [[1, 2.5], [3, 4]], "1.0,2.5\n3.0,4.0\n", [[1, 2.5], [3, 4]]),
    (CSV, [1, 2, 3], "1\n2\n3\n", [1, 2, 3]),
    (CSV, [[1.5, 2]], "1.5,2.0\n", [1.5, 2]),
    (CSV, np.array([0.1], "float32"), "0.1\n", 0.1),
    (CSV, [[1, np.nan]], "1.0,nan\n", [1, np.nan]),
    (CSV, ["a,b", 'say "x"'], '"a,b"\n"say ""x"""\n', ["a,b", 'say "x"']),
    (CSV, [("Adelie", 0.98)], "Adelie,0.98\n", ["Adelie", "0.98"]),
]


@pytest.mark.parametrize("encode", [encoders.encode, encoder.encode])
@pytest.mark.parametrize(("media_type", "value", "body", "_read"), BOTH_WAYS)
def test_encode_writes_text(encode, media_type, value, body, _read):
    assert encode(value, media_type) == body


@pytest.mark.parametrize("decode", [encoders.decode, decoder.decode])
@pytest.mark.parametrize(("media_type", "_value", "body", "read"), BOTH_WAYS)
def test_decode_reads_text_as_str_or_bytes(decode, media_type, _value, body, read):
    np.testing.assert_array_equal(decode(body, media_type), read)
    np.testing.assert_array_equal(decode(body.encode(), media_type), read)


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1.5, np.nan]]),
        np.arange(3),
        np.array(["a", "bc"]),
        np.zeros((2, 3), "float32", order="F"),
        np.array(7),
    ],
)
def test_npy_comes_back_with_its_dtype(array):
    body = encoders.encode(array, NPY)

    read = decoder.decode(body, NPY)

    assert isinstance(body, bytes)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)
    np.testing.assert_array_equal(encoders.npy_to_numpy(encoders.array_to_npy(array)), array)


def test_object_labels_leave_as_npy_strings():
    labels = np.array(["setosa", "virginica"], dtype=object)

    assert encoders.npy_to_numpy(encoders.array_to_npy(labels)).tolist() == labels.tolist()


def test_other_objects_are_not_pickled_into_npy():
    with pytest.raises(ValueError, match="allow_pickle"):
        encoders.array_to_npy([{"a": 1}])


@pytest.mark.parametrize(
    ("value", "body"),
    [
        ([np.nan, 1], "[null, 1]"),
        ({"a": (np.inf, "NaN")}, '{"a": [null, "NaN"]}'),
        (np.array([[np.float32("-inf"), 2]]), "[[null, 2.0]]"),
        ({"a": [np.array([np.nan]), np.int64(3)]}, '{"a": [[null], 3]}'),
        ([np.float64(1), np.bool_(True), None], "[1.0, true, null]"),
    ],
)
def test_json_is_json_whatever_the_numbers(value, body):
    assert encoders.array_to_json(value) == body


def test_null_reads_as_nan_after_the_cast_to_float_of_awss_container():
    read = encoders.decode(encoders.encode([[1.5, np.nan]], JSON), JSON)

    np.testing.assert_array_equal(read.astype("float32"), [[1.5, np.nan]])


@pytest.mark.parametrize("value", [{"a": 1}, 3.5, np.zeros((1, 2, 2))])
def test_csv_refuses_what_is_no_table(value):
    with pytest.raises(TypeError, match="list or a table"):
        encoders.encode(value, CSV)


def test_json_refuses_what_it_cannot_write():
    with pytest.raises(TypeError, match="object is not JSON"):
        encoders.encode([object()], JSON)


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ("1,\n3,4\n", [[1, np.nan], [3, 4]]),
        ("5.1,3.5,1,0", [5.1, 3.5, 1, 0]),
        ("1,2\nx,3\n", [["1", "2"], ["x", "3"]]),
        ("12\r\n13\r\n", [12, 13]),
    ],
)
def test_csv_is_a_table_of_floats_or_of_text(body, read):
    np.testing.assert_array_equal(decoder.decode(body, CSV), read)


def test_csv_dtype_is_the_callers():
    assert encoders.csv_to_numpy("1,2", dtype=int).tolist() == [1, 2]
    assert encoders.csv_to_numpy("1,\n2,3", dtype=str).tolist() == [["1", ""], ["2", "3"]]
    with pytest.raises(errors.ClientError):
        encoders.csv_to_numpy("a\n", dtype=float)


class Bomb:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, fuse):
        self.fuse = fuse

    def __reduce__(self):
        return (Path.touch, (self.fuse,))


@pytest.mark.parametrize("decode", [encoders.decode, decoder.decode])
@pytest.mark.parametrize("wrap", ["npy", "pickle"])
def test_a_poisoned_npy_is_refused_without_being_unpickled(decode, wrap, tmp_path):
    fuse = tmp_path / "unpickled"
    body = BytesIO()
    if wrap == "npy":
        np.save(body, np.array([Bomb(fuse)], dtype=object), allow_pickle=True)
    else:
        pickle.dump(Bomb(fuse), body)

    with pytest.raises(ValueError, match="npy") as caught:
        decode(body.getvalue(), NPY)

    assert caught.value.status_code == 400
    assert not fuse.exists()


def _npy_header(**claims):
    out = BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": "<f8", "fortran_order": False, "shape": (2,), **claims}
    )
    return out.getvalue()


UNREADABLE = [
    (JSON, b"[1, 2"),
    (JSON, b"[[1], [2, 3]]"),
    (JSON, b"\xff"),
    (JSON, b"[" * 100_000),
    (CSV, b""),
    (CSV, b"\n"),
    (CSV, b"1,2\n3\n"),
    (CSV, b'"1,2\n'),
    (CSV, b"\xff"),
    (NPY, b""),
    (NPY, b"not npy"),
    (NPY, _npy_header()),
    (NPY, _npy_header(shape=(10**14,))),
    (NPY, _npy_header(shape=(10**14,), descr="|V0")),
    (NPY, _npy_header().replace(b"'shape'", b"('shape'")),
]


@pytest.mark.parametrize(("media_type", "body"), UNREADABLE)
@pytest.mark.parametrize("decode", [encoders.decode, decoder.decode])
def test_an_unreadable_body_is_the_callers_fault(decode, media_type, body):
    with pytest.raises((ValueError, RecursionError)) as caught:
        decode(body, media_type)

    assert caught.value.status_code == 400


def test_media_types_match_whatever_their_case_and_parameters():
    assert encoders.encode([1], "Application/JSON; charset=utf-8") == "[1]"
    assert encoders.decode("1,2", "text/csv;header=absent").tolist() == [1, 2]


@pytest.mark.parametrize("media_type", ["text/html", "application/x-npz", "", None])
def test_an_unknown_type_is_415_to_read_and_406_to_write(media_type):
    with pytest.raises(errors.UnsupportedFormatError, match="cannot be read") as reading:
        decoder.decode(b"", media_type)
    with pytest.raises(toolkit_errors.UnsupportedFormatError, match="cannot be written") as writing:
        encoder.encode([], media_type)

    assert (reading.value.status_code, writing.value.status_code) == (415, 406)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (toolkit_errors.BaseInferenceToolkitError(422, "msg", "phrase"), 422, "msg"),
        (toolkit_errors.GenericInferenceToolkitError(400), 400, "Invalid Request"),
        (toolkit_errors.GenericInferenceToolkitError(status_code=413, message="big"), 413, "big"),
        (errors.UnsupportedFormatError("text/html"), 415, "Content type text/html cannot be read"),
        (errors.UnsupportedFormatError("a/b", 406, [JSON]), 406, "Content type a/b cannot be writ"),
        (errors.ClientError("bad"), 400, "bad"),
    ],
)
def test_errors_carry_a_status_and_survive_a_pipe(error, status, said):
    again = pickle.loads(pickle.dumps(error))

    assert error.status_code == again.status_code == status
    assert str(error) == str(again)
    assert str(error).startswith(said)


def test_a_toolkit_error_keeps_its_three_parts():
    error = toolkit_errors.BaseInferenceToolkitError(422, "msg", "phrase")

    assert (error.status_code, error.message, error.phrase) == (422, "msg", "phrase")


@pytest.mark.parametrize(
    ("arguments", "keywords", "status", "content_type"),
    [
        (("x",), {}, 200, "application/json"),
        (("x",), {"mimetype": "text/csv"}, 200, "text/csv; charset=utf-8"),
        (("x", "text/csv"), {}, 200, "application/json"),
        (("x", "text/csv"), {"mimetype": "text/csv"}, 200, "text/csv; charset=utf-8"),
        (("x",), {"accept": "text/csv", "mimetype": NPY}, 200, NPY),
        ((), {"response": b"x", "status": 418}, 418, "application/json"),
        (("x", None, 204), {}, 204, "application/json"),
    ],
)
def test_response_takes_what_scripts_pass(arguments, keywords, status, content_type):
    response = worker.Response(*arguments, **keywords)

    assert isinstance(response, flask.Response)
    assert response.get_data() == b"x"
    assert (response.status_code, response.headers["Content-Type"]) == (status, content_type)


def test_response_keeps_headers_and_may_be_empty():
    response = worker.Response(headers={"X-Amzn-SageMaker-Custom-Attributes": "trace=1"})

    assert response.get_data() == b""
    assert response.headers["X-Amzn-SageMaker-Custom-Attributes"] == "trace=1"


def test_names_that_scripts_only_import_say_so_when_used():
    with pytest.raises(AttributeError, match=r"env\.ServingEnv does not exist: skserve"):
        env.ServingEnv()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = framework.nonsense


def test_training_env_is_read_from_the_training_job(monkeypatch):
    told = {"model_dir": "/opt/ml/model", "channel_input_dirs": {"train": "/t"}, "hosts": ["a"]}
    monkeypatch.setenv("SM_TRAINING_ENV", json.dumps(told))

    job = framework.training_env()

    assert (job.model_dir, job.channel_input_dirs["train"], job.hosts) == (
        "/opt/ml/model",
        "/t",
        ["a"],
    )


def test_accept_is_split_into_media_types():
    assert utils.parse_accept("text/csv, application/json;q=0.9") == [CSV, JSON]


FRAMEWORK = "from sagemaker_containers.beta.framework"
IMPORTS = [
    f"{FRAMEWORK} import content_types, encoders, env, modules, transformer, worker",
    f"{FRAMEWORK} import encoders, errors, functions, logging, server, training_env",
    f"{FRAMEWORK}.encoders import array_to_npy, npy_to_numpy",
    "import sagemaker_containers.beta.framework as smc; smc.worker.Response, smc.encoders.encode",
    "import sagemaker_containers; sagemaker_containers.training_env",
    "from sagemaker_inference import content_types, decoder, encoder, errors, utils",
    "from sagemaker_inference import default_inference_handler, encoder",
    "from sagemaker_inference.errors import BaseInferenceToolkitError, UnsupportedFormatError",
    "from sagemaker_inference.default_inference_handler import DefaultInferenceHandler",
    "from sagemaker_inference.encoder import encode",
    "from sagemaker_inference.decoder import decode",
    "from sagemaker_inference import logging; logging.configure_logger(), logging.get_logger()",
]


@pytest.mark.parametrize("line", IMPORTS)
def test_published_import_lines_work_and_stay_light(line):
    heavy = "; import sys; assert not {'pandas', 'scipy', 'sklearn'} & set(sys.modules)"

    _python("-W", "error", "-c", line + heavy)


def test_the_toolkit_needs_no_flask():
    _python("-c", "import sagemaker_inference.decoder, sys; assert 'flask' not in sys.modules")


def _python(*arguments, **variables):
    subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "container"), **variables},
        check=True,
    )


# The scripts by themselves: each function called as the contract says. Serving them is tested
# where hooks and the server are.


def _script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / name / "inference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_abalone_script_trains_and_then_answers_features(tmp_path):
    lines = [f"{'MFI'[i % 3]},{i},{i + 1},.1,.2,.3,.4,.5,{i}\n" for i in range(9)]
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "abalone.csv").write_text("".join(lines))
    _python(
        str(SCRIPTS / "abalone_featurizer" / "inference.py"),
        SM_OUTPUT_DATA_DIR=str(tmp_path),
        SM_MODEL_DIR=str(tmp_path),
        SM_CHANNEL_TRAIN=str(tmp_path / "train"),
    )
    script = _script("abalone_featurizer")
    model = script.model_fn(str(tmp_path))

    labelled = script.predict_fn(script.input_fn("".join(lines[:2]), CSV), model)
    bare = script.predict_fn(script.input_fn("M,0,1,.1,.2,.3,.4,.5\n", CSV), model)
    as_json = script.output_fn(bare, JSON)
    as_csv = script.output_fn(labelled, CSV)

    assert as_json.get_json() == {"instances": [{"features": bare[0].tolist()}]}
    assert as_csv.headers["Content-Type"] == "text/csv; charset=utf-8"
    np.testing.assert_allclose(encoders.decode(as_csv.get_data(), CSV), labelled)
    assert labelled[:, 0].tolist() == [0, 1]


@pytest.mark.parametrize(("accept", "one"), [(JSON, "[0]"), (CSV, b"0\n")])
def test_the_docs_script_reads_what_the_toolkit_reads(accept, one, tmp_path):
    X, y = load_iris(return_X_y=True)
    joblib.dump(LogisticRegression(max_iter=1000).fit(X, y), tmp_path / "model.joblib")
    script = _script("docs_iris")
    model = script.model_fn(str(tmp_path))
    bodies = [
        ("5.1,3.5,1.4,0", CSV),
        ("[[5.1, 3.5, 1.4, 0]]", JSON),
        ('{"instances": [[5.1, 3.5, 1.4, 0]]}', JSON),
        (encoders.array_to_npy(X[:1]), NPY),
    ]

    for body, media_type in bodies:
        prediction = script.predict_fn(script.input_fn(body, media_type), model)
        assert script.output_fn(prediction, accept) == (one, accept)


@pytest.mark.parametrize(
    ("wish", "kind", "status"),
    [
        ("toolkit", toolkit_errors.BaseInferenceToolkitError, 422),
        ("generic", toolkit_errors.GenericInferenceToolkitError, 400),
        ("format", errors.UnsupportedFormatError, 415),
        ("decode", errors.ClientError, 400),
        ("werkzeug", BadRequest, 400),
    ],
)
def test_the_errors_script_fails_with_a_status(wish, kind, status):
    script = _script("errors_status")

    with pytest.raises(kind) as caught:
        script.input_fn(json.dumps(wish), JSON)

    said = getattr(caught.value, "status_code", None) or caught.value.code
    assert said == status
