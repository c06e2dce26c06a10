"""What all processes together have counted, read from the regions of `counters`."""

from __future__ import annotations

from skserve.series import (
    BUCKETS,
    BY_COLUMN,
    CELLS,
    MODEL_NUMBERS,
    PLACE,
    Family,
)


class Totals:
    """What all processes had counted at one moment."""

    def __init__(self, regions: list[list[float]]) -> None:
        self._regions = regions
        self._sums: list[float] = [sum(cells) for cells in zip(*regions, strict=True)]

    def of(self, family: Family, value: str = "") -> float:
        """Return one series of a counter or a gauge."""
        place = PLACE[family.name, value]
        if family.greatest:
            return max(region[place] for region in self._regions)
        return self._sums[place]

    def histogram(self, family: Family, value: str) -> tuple[list[float], float]:
        """Return the counts of the buckets, each by itself and the last without a bound, and the
        sum of what was measured.
        """
        place, total = PLACE[family.name, value], PLACE[family.name + "_sum", value]
        return self._sums[place : place + len(BUCKETS) + 1], self._sums[total]

    def column(self, column: int) -> list[float]:
        """Return how many cells of a column there were of each of `CELLS`."""
        place = BY_COLUMN + column * len(CELLS)
        return self._sums[place : place + len(CELLS)]

    def model(self, place: int) -> list[float]:
        """Return the requests, errors and seconds of a model."""
        place *= MODEL_NUMBERS
        return self._sums[place : place + MODEL_NUMBERS]
