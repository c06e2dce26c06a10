"""Which spelling of a category a CatBoost model learned: it keeps hashes, so the model is asked.

A category is a text to CatBoost: a whole number is its digits, and True is "1". So a cell of CSV
that reads True is another category than true in JSON, unless the column was one of texts.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any

from skserve.estimators.columns import Ambiguous, meaning

UNKNOWN = "\x00"  # no category of a table is this text

_MOST = 4096  # categories of a column that a model is asked for once

# How a column may have been fitted on False and True: as bools, or as texts.
_PAIRS = (("0", "1"), ("False", "True"), ("false", "true"), ("FALSE", "TRUE"))

_WAY_OUT = (
    "Send JSON, where a text is quoted and true or false is not, or declare the column in a "
    "schema.json beside the model: deploy.py pack --example writes it."
)


class Labels:
    """The categories of the column `at` of a model, which reads rows like `row`."""

    def __init__(self, model: Any, row: list[Any], at: int) -> None:
        self._model, self._row, self._at = model, row, at
        self._leaves = lru_cache(_MOST)(self._leaves_of)

    def of(self, cell: Any, spelled: bool) -> Any:
        """Return the category that the model learned of those that `cell` may be, or the cell.

        What is sent goes before what it means. Raises Ambiguous for a word of CSV that is a text or
        a bool, where the model does not tell which it learned.
        """
        text = cell if isinstance(cell, str) else None
        means = cell if text is None else meaning(text)
        if isinstance(means, bool):
            return self._bool(means, text, spelled)
        if isinstance(means, float) and means.is_integer():
            means = int(means)
        if type(cell) is int or means is text or text == str(means):
            return cell
        digits = [str(means), f"{means}.0"] if isinstance(means, int) else [repr(means)]
        for label in digits if text is None else [text, *digits]:
            if self._knows(label):
                return label
        return means if text is None else text

    def _bool(self, value: bool, text: str | None, spelled: bool) -> Any:
        """Return True or False as the model has them, of which it may know only the other one."""
        learned = [pair for pair in _PAIRS if any(map(self._knows, pair))]
        if text is not None and any(text in pair for pair in learned):
            return text
        if learned:
            return learned[0][value]
        if spelled and self._decides:
            why = "the model keeps hashes of its categories, which do not say what it learned"
            raise Ambiguous(why, _WAY_OUT)
        return value if text is None else text

    def _knows(self, label: str) -> bool:
        """Whether an answer can depend on a category.

        It cannot where a row falls into the leaves of an unknown category, one of each tree.
        """
        return self._leaves(label) != self._unknown

    def _leaves_of(self, label: str) -> bytes:
        """Return the leaves that a row with this category falls into."""
        row = [*self._row[: self._at], label, *self._row[self._at + 1 :]]
        try:
            return bytes(self._model.calc_leaf_indexes([row], thread_count=1).tobytes())
        except Exception:  # it has features of which no row can be made up
            return b""

    @cached_property
    def _unknown(self) -> bytes:
        return self._leaves_of(UNKNOWN)

    @cached_property
    def _decides(self) -> bool:
        """Whether an answer can depend on the column."""
        try:
            found = self._model.get_feature_importance(
                type="PredictionValuesChange", thread_count=1
            )
        except Exception:  # a model without the weights of its leaves
            return True
        return bool(found[self._at])
