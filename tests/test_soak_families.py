"""Ten thousand rows of each family, one by one and together: the answers are the model's own.

For the scikit-learn that is installed: run it in the environment of another lock for that one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from skserve.estimators.accelerate import proof, registry
from skserve.estimators.frame import Frame, plain
from skserve.estimators.methods import METHODS, find
from tests import test_accelerate_columns as mixed
from tests import test_accelerate_families as families

pytestmark = pytest.mark.soak

ROWS, TOGETHER = 10_000, 20

# From here on rows may have strange cells. Others are seldom refused, and then not asked anew.
ODD = 8_000

# Strange numbers, of which the last are mostly refused; each row has at most one.
STRANGE = [0.0, -0.0, 1e-300, -1e-300, 1e300, -1e300, 123456789.0, np.nan, np.inf]
WORDS = ["", " ", "\N{SNOWMAN}", "ﬁ ß İ ÀÉÎ", "x" * 999, "City 1", "007", "7", "nan", "None", "\0"]


def numbers(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw rows about those that a model was fitted on, from ODD on with a strange cell."""
    drawn = rows[rng.integers(len(rows), size=ROWS)] * rng.choice([1.0, 1.1, 0.5, 3.0], (ROWS, 1))
    odd = np.arange(ODD, ROWS)
    drawn[odd, rng.integers(rows.shape[1], size=len(odd))] = rng.choice(STRANGE, len(odd))
    return drawn


def table(rng: np.random.Generator) -> Frame:
    """Draw rows of the mixed table, from ODD on some cells unknown, missing, empty or strange."""
    places = rng.integers(len(mixed.TABLE), size=ROWS)
    columns: list[Any] = []
    for name in mixed.TABLE:
        cells = mixed.TABLE[name].to_numpy()[places]
        if cells.dtype == object:
            some = cells.tolist()
            for at in ODD + np.flatnonzero(rng.random(ROWS - ODD) < 0.25):
                some[at] = WORDS[rng.integers(len(WORDS))]
            columns.append(some)
        else:
            odd = ODD + np.flatnonzero(rng.random(ROWS - ODD) < 0.25)
            cells[odd] = rng.choice(STRANGE, len(odd))
            columns.append(cells)
    return Frame(columns, list(mixed.TABLE), ROWS)


def texts(rng: np.random.Generator) -> list[str]:
    """Draw texts of known, unknown and strange words, some empty."""
    words = [*mixed.WORDS, *WORDS, "unknown", "wörld", "a1_2"]
    lengths = rng.integers(0, 14, ROWS)
    return [" ".join(words[at] for at in rng.integers(len(words), size=n)) for n in lengths]


def answers(own: Callable[[Any], Any], rows: Any) -> Iterator[tuple[slice, Any]]:
    """Yield what a model says of some rows at a time, and of each where it refuses them together.

    Of a row that is refused, the kind of error.
    """
    for start in range(0, ROWS, TOGETHER):
        some = slice(start, start + TOGETHER)
        try:
            yield some, own(plain(rows[some]))
        except (ValueError, TypeError):
            for at in range(start, start + TOGETHER):
                one = slice(at, at + 1)
                try:
                    yield one, own(plain(rows[one]))
                except (ValueError, TypeError) as error:
                    yield one, type(error)


def same(said: Any, wanted: Any) -> bool:
    pairs = [one.to_numpy() if hasattr(one, "to_numpy") else one for one in (said, wanted)]
    return proof.same(*pairs)


def compare(model: Any, rows: Any) -> None:
    """Ask each method of a model about all rows, by its fast path and by itself."""
    for method in METHODS:
        own, fast = find(model, method), registry.kernel(model, method)
        if own is None or fast is None:
            continue
        ask = registry.falling_back(registry.alone_or_together(fast, method, rows[:1]), own)
        refused = 0
        for some, wanted in answers(own, rows):
            if isinstance(wanted, type):
                refused += 1
                with pytest.raises(wanted):
                    ask(rows[some])
                continue
            assert same(ask(rows[some]), wanted), (method, some)
            for at in range(some.start, some.stop):
                one = slice(at, at + 1)
                part = proof._cut(wanted, slice(at - some.start, at - some.start + 1))
                assert same(ask(rows[one]), part), (method, at, plain(rows[one]))
        assert refused < ROWS / 2


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Rows that are too large make numpy warn, in the model and in its fast path."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", families.CASES)
def test_numbers_are_answered_as_the_model_does(name):
    rng = np.random.default_rng(1)
    compare(families.fitted(name), numbers(np.asarray(families.CASES[name][1]), rng))


@pytest.mark.parametrize("name", mixed.MIXED)
def test_mixed_rows_are_answered_as_the_model_does(name):
    compare(mixed.fitted(name), table(np.random.default_rng(2)))


@pytest.mark.parametrize("name", mixed.TEXT)
def test_texts_are_answered_as_the_model_does(name):
    compare(mixed.fitted(name), texts(np.random.default_rng(3)))
