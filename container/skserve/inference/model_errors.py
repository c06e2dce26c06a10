"""The answer to values that the model itself refused: whose fault it is, and which cell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.errors import BadRequest, ModelFault, ServeError, quote
from skserve.estimators.frame import plain
from skserve.estimators.schema import Schema
from skserve.formats.cells import count, kind_of, listed, place
from skserve.formats.conform import BY_NAME
from skserve.inference.calls import Request

_MOST = 100  # columns that are tried one by one for the cell at fault

# What boosters put around a sentence: a time and a place in their source, and a trace of C++.
_BEFORE = re.compile(r"^\[[\d:]+\] \S+?:\d+: ")
_BEHIND = re.compile(r"\s*\nStack trace:.*", re.DOTALL)

_BOOSTERS = ("lightgbm", "xgboost", "catboost", "_catboost")


def of_a_booster(error: Exception) -> bool:
    """Whether a booster refused its values; not all of them raise a ValueError for that."""
    return type(error).__module__.partition(".")[0] in _BOOSTERS


# What a step raises that meets other columns or types than it was fitted on.
_UNLIKE = (AttributeError, IndexError, KeyError, TypeError)


def of_a_silent_step(error: Exception, schema: Schema) -> bool:
    """Whether a step failed on cells of which the model does not say what they should be."""
    silent = schema.open or any(column.kind == "any" for column in schema.columns)
    return silent and isinstance(error, _UNLIKE)


def unlike(request: Request, schema: Schema, error: Exception) -> BadRequest:
    """Make the answer to a table on which a step failed that does not say what it reads."""
    named = hasattr(request.X, "columns") or schema.names is not None
    return BadRequest(
        "A step that does not say what it reads of its columns failed on this table: "
        + quote(f"{type(error).__name__}: {error}"),
        "Send the columns it was fitted on, of the same types; a schema.json beside the model "
        "declares them."
        if named
        else BY_NAME,
    )


def other_rows(method: str, answered: int, sent: int) -> BadRequest:
    """Make the answer to a table of which a step that does not say what it reads made other rows.

    It may have gone through the names of columns, where it expects a list of texts.
    """
    return BadRequest(
        f"{method} returned {count(answered, 'row')} for {sent}: a step that does not say what it "
        "reads takes no table of these columns, or leaves rows out.",
        "Send the rows in another form: of texts, a list of strings. Or read the body in an "
        "input_fn.",
    )


def refused(
    request: Request,
    method: str,
    ask: Callable[[Any], Any],
    schema: Schema,
    error: Exception,
) -> ServeError:
    """Make the answer to the values that `ask`, the model's `method`, refused with `error`.

    The table has the right shape and dtypes by now, so it is the values: NaN or infinity where the
    model takes none, an unknown category. scikit-learn says so best.
    """
    if request.n_rows is None:
        return ModelFault(
            f"{method} failed on what the script's input_fn returned.",
            "The log has the traceback.",
        )
    said = _BEHIND.sub("", _BEFORE.sub("", str(error)))
    if "unknown categor" in said and (cell := _unknown(ask, plain(request.X), schema)):
        return BadRequest(*cell)
    where = _cell_at_fault(ask, plain(request.X), schema.names, said)
    return BadRequest(where + quote(said), "Change the values, or fit a model for them.")


def _unknown(ask: Callable[[Any], Any], X: Any, schema: Schema) -> tuple[str, str] | None:
    """Name the first cell that is no learned category and for which the model refuses its row.

    scikit-learn counts the columns of the one encoder, and has a number as float64.
    """
    for at, column in [pair for pair in enumerate(schema.columns) if pair[1].values][:_MOST]:
        cells = (X.iloc[:, at] if hasattr(X, "iloc") else X[:, at]).tolist()
        row = next((number for number, one in enumerate(cells) if one not in column.known), None)
        if row is None or not _refuses(ask, X, row, at, set()):
            continue
        cell = cells[row]
        if isinstance(cell, float) and cell.is_integer():
            cell = int(cell)
        where = f"Row {row + 1}, column {place(schema.names, at)} is"
        hint = f"The model learned {listed(column.values)}."
        if cell is None or cell != cell:
            return f"{where} missing, and the model met no missing value there.", hint
        return f"{where} {kind_of(cell)}, a category that the model never met.", hint
    return None


def _cell_at_fault(
    ask: Callable[[Any], Any], X: Any, names: Sequence[str] | None, said: str
) -> str:
    """Name the first cell for which the model refuses X, as a sentence to put before its own.

    The model takes missing values in some columns and not in others, so each column that has one is
    tried in a row of its own, with the other columns made whole.
    """
    kinds = (("NaN", "missing", np.isnan), ("infinity", "infinite", np.isinf))
    for word, state, test in kinds:
        if not re.search(rf"\b{word}\b", said):
            continue
        found = dict(list(_cells(X, test))[:_MOST])
        for at, row in found.items():
            if len(found) == 1 or _refuses(ask, X, row, at, set(found) - {at}):
                return f"Row {row + 1}, column {place(names, at)} is {state}. "
    return ""


def _cells(X: Any, test: Callable[[Any], Any]) -> Iterator[tuple[int, int]]:
    """Yield the column and the row of the first cell of each column for which `test` holds."""
    frame = hasattr(X, "iloc")
    if not (frame or isinstance(X, np.ndarray)) or X.ndim != 2:
        return
    for at in range(X.shape[1]):
        column = _floats(X.iloc[:, at].to_numpy() if frame else X[:, at])
        if test(column).any():
            yield at, int(test(column).argmax())


def _floats(column: NDArray[Any]) -> NDArray[np.float64]:
    """Return the floats of a column, and 0 for what is none, such as a text."""
    if column.dtype.kind == "f":
        return column
    if column.dtype.kind != "O":
        return np.zeros(len(column))
    return np.array([cell if isinstance(cell, float) else 0.0 for cell in column.tolist()])


def _refuses(ask: Callable[[Any], Any], X: Any, row: int, at: int, others: set[int]) -> bool:
    """Whether one row is refused that has nothing wrong but its cell in column `at`."""
    one = X[row : row + 1].copy()
    for other in others:
        whole = X.iloc[:, other] if hasattr(X, "iloc") else X[:, other]
        fine = [cell for cell in whole.tolist() if not isinstance(cell, float) or np.isfinite(cell)]
        value = fine[0] if fine else 0.0
        if hasattr(one, "iloc"):
            one = one.assign(**{one.columns[other]: value})
        else:
            one[:, other] = value
    try:
        ask(one)
    except Exception:
        return True
    return False
