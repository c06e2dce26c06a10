"""Channels of a training job, as people really fill them, and the tables that become of them."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skserve.errors import StartError
from skserve.training import channel as channel_module
from skserve.training.dataset import Channel


@pytest.fixture
def channel(tmp_path: Path):
    """Return a function that fills a channel with files and reads it."""

    def read(target=None, content_type="", header="auto", **files):
        for name, content in files.items():
            path = tmp_path / "train" / name.replace("__", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, np.ndarray):
                np.save(path, content)
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return channel_module.read(
            Channel("train", tmp_path / "train", content_type, header), target
        )

    return read


def test_plain_numbers_are_read_exactly(channel):
    values = np.random.default_rng(0).normal(size=(200, 7)) * 10.0 ** np.arange(-3, 4)
    text = "".join(",".join(map(repr, row)) + "\n" for row in values.tolist())

    table = channel(a__csv=text)

    assert np.array_equal(table.X, values)
    assert table.y is None


HEADERS = [  # first line, header=, whether it is one
    ("a,b", "auto", True),
    ("a,b", "absent", False),
    ("1,2", "auto", False),
    ("1,2", "present", True),
    ("a,2", "auto", False),
    (",b", "auto", False),
    ("nan,b", "auto", False),
    ('"a, or b",c', "auto", True),
]


@pytest.mark.parametrize(("first", "header", "named"), HEADERS)
def test_a_first_line_without_a_number_is_a_header_unless_the_job_says_otherwise(
    channel, first, header, named
):
    table = channel(a__csv=f"{first}\n1,2\n3,4\n", header=header)

    assert len(table.X) == (2 if named else 3)
    assert hasattr(table.X, "columns") == (named or first != "1,2")


@pytest.mark.parametrize("said", ["absent", "present"])
def test_the_channels_content_type_may_say_whether_there_is_a_header(channel, said):
    table = channel(a__csv="1,2\n3,4\n", content_type=f"text/csv; header={said}")

    assert len(table.X) == (1 if said == "present" else 2)


def test_a_target_given_by_a_name_makes_the_first_line_a_header(channel):
    table = channel(a__csv="x,2020\n1,5\n2,6\n", target="x")

    assert (table.names, table.y.tolist(), table.X.iloc[:, 0].tolist()) == (
        ["2020"],
        [1.0, 2.0],
        [5.0, 6.0],
    )


TARGETS = [(0, [1, 4], [[2, 3], [5, 6]]), (1, [2, 5], [[1, 3], [4, 6]])]
TARGETS += [(-1, [3, 6], [[1, 2], [4, 5]]), (2, [3, 6], [[1, 2], [4, 5]])]


@pytest.mark.parametrize(("target", "y", "X"), TARGETS)
@pytest.mark.parametrize("kind", ["npy", "csv", "jsonl"])
def test_a_target_given_by_its_number_is_taken_out(channel, kind, target, y, X):
    rows = [[1, 2, 3], [4, 5, 6]]
    files = {
        "npy": {"a__npy": np.array(rows)},
        "csv": {"a__csv": "1,2,3\n4,5,6\n"},
        "jsonl": {"a__jsonl": "".join(json.dumps(row) + "\n" for row in rows)},
    }

    table = channel(target=target, **files[kind])

    assert (table.y.tolist(), table.X.tolist()) == (y, X)


def test_taking_the_target_out_moves_no_row_to_another(channel):
    values = np.random.default_rng(0).normal(size=(10_000, 5))

    table = channel(target=2, a__npy=values)

    assert np.array_equal(table.y, values[:, 2])
    assert np.array_equal(table.X, np.delete(values, 2, axis=1))


def test_files_of_a_channel_are_one_table_in_order_of_their_names(channel):
    table = channel(b__csv="x,y\n3,4\n", a__csv="x,y\n1,2\n", c__csv="5,6\n", _SUCCESS="ignored")

    assert table.X.to_numpy().tolist() == [[1, 2], [3, 4], [5, 6]]


def test_npy_files_are_joined_whatever_their_order_in_memory(channel):
    table = channel(a__npy=np.arange(6).reshape(3, 2), b__npy=np.asfortranarray([[7.5, 8], [9, 1]]))

    assert table.X.tolist() == [[0, 1], [2, 3], [4, 5], [7.5, 8], [9, 1]]


def test_float32_stays_float32_and_one_dimension_is_one_column(channel):
    assert channel(a__npy=np.ones((2, 2), np.float32)).X.dtype == np.float32
    assert channel(a__npy=np.arange(3)).X.tolist() == [[0], [1], [2]]


def test_columns_of_text_and_missing_cells_keep_what_they_are(channel):
    table = channel(a__csv="code,size,ok\n007,1,True\nx,,FALSE\n,3,TRUE\n")

    assert table.X["code"].tolist()[:2] == ["007", "x"]
    assert table.X["code"].isna().tolist() == [False, False, True]
    assert table.X["size"].isna().tolist() == [False, True, False]
    assert table.X["ok"].tolist() == [1.0, 0.0, 1.0]


def test_json_lines_objects_name_the_columns_and_a_string_is_never_a_number(channel):
    table = channel(a__jsonl='{"a": 1, "b": "5"}\n\n{"b": "6"}\n')

    assert table.names == ["a", "b"]
    assert table.X["b"].tolist() == ["5", "6"]
    assert np.isnan(table.X["a"][1])


def test_a_number_that_no_float_holds_makes_its_column_text(channel):
    digits = "9" * 400

    assert channel(a__jsonl=f"[{digits}, 1]\n").X.iloc[0].tolist() == [int(digits), 1.0]


def test_what_excel_writes_is_read(channel):
    table = channel(a__csv="\ufeffa,b\r\n1,2\r\n3,4\r\n")

    assert table.names == ["a", "b"]
    assert table.X.to_numpy().tolist() == [[1, 2], [3, 4]]


def test_empty_lines_before_a_header_are_no_header(channel):
    table = channel(a__csv="\n\na,b\n\n1,2\n", b__csv="\na,b\n3,4\n")

    assert table.names == ["a", "b"]
    assert table.X.to_numpy().tolist() == [[1, 2], [3, 4]]


def test_files_without_an_ending_are_what_the_channel_says(channel):
    assert channel(content_type="text/csv", **{"part-0000": "1,2\n"}).X.tolist() == [[1, 2]]


WRONG = [
    ({}, {}, "There is no channel train"),
    ({"a__csv": ""}, {}, "Channel train holds no data"),
    ({"a__csv": "x,y\n"}, {}, "Channel train holds no rows"),
    ({"a__csv": "1,2\n", "b__npy": np.ones(2)}, {}, "mixes formats: a.csv and b.npy"),
    ({"a__csv__gz": "1"}, {}, "a.csv.gz in channel train is of no known format"),
    ({"a__csv": "1,2\n3\n"}, {}, "a.csv, line 2 has 1 values, expected 2"),
    ({"a__csv": "x,y\n1,2\n3,4,5\n"}, {}, "a.csv, line 3 has 3 values, expected 2"),
    ({"a__csv": 'x,y\n1,"2\n3,4\n'}, {}, "is not CSV"),
    ({"a__csv": b"x,y\n\xff,2\n"}, {}, "is not UTF-8 text"),
    ({"a__csv": "a,a\n1,2\n"}, {}, "columns of the same name: a"),
    ({"a__csv": "a,b\n1,2\n"}, {"target": "c"}, "target=c, but channel train has the columns a, b"),
    ({"a__csv": "1,2\n"}, {"target": "c"}, "have no names; give the target by number"),
    ({"a__csv": "1,2\n"}, {"target": 2}, "target=2, but channel train has 2 columns, 0 to 1"),
    ({"a__csv": "1\n"}, {"target": 0}, "has the target as its only column"),
    ({"a__csv": "a;b\n1,5;2\n"}, {"target": "b"}, "separated by ';'? Save it with commas"),
    ({"a__csv": "1\t2\n"}, {"target": -1}, r"separated by '\t'? Save it with commas"),
    ({"a__csv": "1,2\n"}, {"header": "yes"}, "header=yes; expected auto, present, absent"),
    (
        {"a__csv": "a,b\n1,2\n", "b__csv": "b,a\n1,2\n"},
        {},
        "b.csv has the columns of the first file in another order",
    ),
    ({"a__npy": b"\x93NUMPY"}, {}, "a.npy is not a readable npy file"),
    ({"a__npy": np.array(["x"])}, {}, "a.npy holds <U1"),
    ({"a__npy": np.ones((2, 2, 2))}, {}, "of shape (2, 2, 2); expected numbers in rows"),
    ({"a__npy": np.ones((2, 2)), "b__npy": np.ones((2, 3))}, {}, "have 2 to 3 columns"),
    ({"a__jsonl": "[1]\n{"}, {}, "a.jsonl, line 2 is not JSON"),
    ({"a__jsonl": '[1]\n{"a": 1}\n'}, {}, "a.jsonl, line 2: lists and objects are mixed"),
    ({"a__jsonl": '{"a": 1}\n{"b": 1}\n'}, {}, "has b, which the first object has not"),
    ({"a__jsonl": "5\n"}, {}, "is no list and no object"),
    ({"a__jsonl": "[" * 100_000}, {}, "a.jsonl, line 1 is not JSON"),
]


@pytest.mark.parametrize(("files", "options", "sentence"), WRONG)
def test_what_cannot_be_read_is_named(channel, files, options, sentence):
    with pytest.raises(StartError) as caught:
        channel(**files, **options)

    assert sentence in str(caught.value)


def test_a_folder_that_may_not_be_read_is_named_and_not_passed_over(channel, monkeypatch):
    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    channel(a__csv="1,2\n", **{"closed/b__csv": "3,4\n"})
    real = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "listdir", lambda path: [one.name for one in scandir(path)])

    with pytest.raises(StartError, match=r"closed cannot be read: Permission denied"):
        channel(a__csv="1,2\n")


def test_an_npy_with_objects_is_never_unpickled(channel, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    np.save(tmp_path / "x.npy", np.array([Trap()], dtype=object), allow_pickle=True)

    with pytest.raises(StartError, match="not a readable npy"):
        channel(a__npy=(tmp_path / "x.npy").read_bytes())
    assert not (tmp_path / "sprung").exists()


def test_parquet_is_read_as_the_other_formats_are(channel):
    pytest.importorskip("pyarrow")
    stream = io.BytesIO()
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "ok": [True, False], "y": ["no", "yes"]})
    frame.to_parquet(stream)

    table = channel(target="y", a__parquet=stream.getvalue())

    assert table.X.dtypes.astype(str).tolist() == ["float64", "object", "float64"]
    assert table.X["b"].isna().tolist() == [False, True]
    assert table.y.tolist() == ["no", "yes"]


def test_parquet_without_pyarrow_is_refused_in_a_sentence(channel):
    with pytest.raises(StartError, match=r"without pyarrow|not readable Parquet"):
        channel(a__parquet=b"PAR1 no")


@pytest.mark.parametrize(("kind", "limit"), [("npy", 1.5), ("csv", 2.0)])
def test_reading_takes_little_more_memory_than_the_data(channel, tmp_path, kind, limit):
    values = np.random.default_rng(0).normal(size=(20_000 if kind == "npy" else 10_000, 50))
    if kind == "npy":
        files = {"a__npy": values}
    else:
        files = {"a__csv": "".join(",".join(map(repr, row)) + "\n" for row in values.tolist())}
    channel(**files)
    tracemalloc.start()
    try:
        channel_module.read(Channel("train", tmp_path / "train"), 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < limit * values.nbytes
