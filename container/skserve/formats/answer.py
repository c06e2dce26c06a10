"""What a model returned, in rows: the bridge from scikit-learn's many shapes to the encoders.

A prediction is an array, a DataFrame, a sparse matrix; `kneighbors` gives a pair of arrays, and
`predict_proba` of a model with several outputs a list of them. Each is taken as one or more parts
whose first dimension is the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skserve.errors import ModelFault, NotAcceptable, TooLarge, quote
from skserve.estimators.methods import METHODS

# What a sparse answer may weigh as a plain table, in bytes. A text model's `transform` has a column
# for every word it ever saw.
DENSE_LIMIT = 256 << 20


@dataclass(frozen=True)
class Answer:
    """The parts of an answer, each (n_rows, ...); `names` is set where they are named."""

    parts: tuple[NDArray[Any], ...]
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, y: Any, method: str | None = None) -> Answer:
        """Take what `method` returned. Raises ModelFault for what has no rows."""
        names = METHODS.get(method or "", ()) if isinstance(y, tuple) else ()
        several = names or (isinstance(y, list) and y and isinstance(y[0], np.ndarray))
        return cls(tuple(_array(part) for part in y) if several else (_array(y),), names)

    @property
    def n_rows(self) -> int:
        return len(self.parts[0])

    def plain(self) -> Any:
        """Return what the model returned, for a script's output_fn."""
        return self.parts[0] if len(self.parts) == 1 else self.parts

    def rows(self) -> Any:
        """Return what JSON writes: an array, or a list with one list or object a row."""
        if len(self.parts) == 1 and not self.names:
            values = self.parts[0]
            return np.ascontiguousarray(values) if values.dtype.kind in "biuf" else values.tolist()
        columns = [part.tolist() for part in self.parts]
        if self.names:
            return [dict(zip(self.names, row, strict=True)) for row in zip(*columns, strict=True)]
        return [list(row) for row in zip(*columns, strict=True)]

    def cells(self) -> Iterable[list[Any]]:
        """Return one flat list a row: the columns of all parts side by side."""
        flat = [part.reshape(len(part), -1).tolist() for part in self.parts]
        return ([cell for part in row for cell in part] for row in zip(*flat, strict=True))

    def array(self) -> NDArray[Any]:
        """Return one array: (n_rows, ...), or (n_rows, n_parts, ...) of several equal parts."""
        values = self.parts[0]
        if len(self.parts) > 1:
            if len({part.shape for part in self.parts}) > 1:
                raise NotAcceptable(
                    "The outputs differ in shape and fit no single array.", "Ask for JSON."
                )
            values = np.stack(self.parts, axis=1)
        return _texts(values)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the parts by name: that of the method, else `values`, numbered if several."""
        numbered = [f"values_{at}" for at in range(len(self.parts))]
        names = self.names or (numbered if len(self.parts) > 1 else ["values"])
        return {name: _texts(part) for name, part in zip(names, self.parts, strict=True)}


def _texts(values: NDArray[Any]) -> NDArray[Any]:
    """Make strings of objects, which no format of arrays holds without a pickle."""
    return values.astype(str) if values.dtype.kind == "O" else values


def _array(y: Any) -> NDArray[Any]:
    """Make a plain array of one part."""
    if hasattr(y, "toarray"):
        if y.shape[0] * y.shape[1] * y.dtype.itemsize > DENSE_LIMIT:
            raise TooLarge(
                f"The answer is a sparse table of {y.shape[0]} x {y.shape[1]} values.",
                f"Send fewer rows: written out it may weigh {DENSE_LIMIT >> 20} MiB.",
            )
        y = y.toarray()
    elif hasattr(y, "to_numpy"):
        y = y.to_numpy()
    try:
        values = np.asarray(y)
    except ValueError as error:
        raise ModelFault(f"The model returned rows of unequal length: {quote(error)}.") from error
    return values.reshape(1) if values.ndim == 0 else values
