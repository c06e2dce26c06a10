"""Small plots as inline SVG, drawn from numbers alone: the image has no plotting library.

Each function returns one `<figure>`. Colours come from the page's style sheet, so that a plot is
readable on a light and on a dark page.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT = 460, 300
_LEFT, _BOTTOM, _TOP, _RIGHT = 64, 44, 12, 16
_POINTS = 1500  # more would make the page large and the plot black
_LABEL = 22  # characters


def bars(title: str, names: Sequence[str], values: Sequence[float], note: str = "") -> str:
    """Draw one horizontal bar for each name."""
    height = 18 * len(names) + 12
    most = max((abs(value) for value in values), default=0.0) or 1.0
    drawn = []
    for at, (name, value) in enumerate(zip(names, values, strict=True)):
        y, length = 6 + 18 * at, abs(value) / most * (_WIDTH - 250)
        drawn.append(
            f'<text x="150" y="{y + 12}" text-anchor="end">{_label(name)}</text>'
            f'<rect class="fill" x="156" y="{y + 2}" width="{length:.1f}" height="13"/>'
            f'<text x="{162 + length:.1f}" y="{y + 12}">{value:.4g}</text>'
        )
    return _figure(title, "".join(drawn), height, note)


def histogram(title: str, values: NDArray[Any], label: str, note: str = "") -> str:
    """Draw how often values occur."""
    finite = values[np.isfinite(values)]
    counts, edges = np.histogram(finite, bins=min(40, max(5, int(np.sqrt(len(finite))))))
    frame = _Frame((edges[0], edges[-1]), (0.0, float(counts.max()) or 1.0))
    drawn = [
        f'<rect class="fill" x="{frame.x(low):.1f}" y="{frame.y(count):.1f}" '
        f'width="{max(frame.x(high) - frame.x(low) - 1, 0.5):.1f}" '
        f'height="{frame.y(0) - frame.y(count):.1f}"/>'
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        if count
    ]
    return _figure(title, "".join(drawn) + frame.axes(label, "rows"), _HEIGHT, note)


def scatter(title: str, x: NDArray[Any], y: NDArray[Any], labels: tuple[str, str]) -> str:
    """Draw y over x with the diagonal, where a perfect prediction lies."""
    count = len(x)
    chosen = np.random.default_rng(0).permutation(count)[:_POINTS]
    x, y = x[chosen].astype(float), y[chosen].astype(float)
    ends = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    frame = _Frame(ends, ends)
    drawn = [f'<circle class="dot" cx="{frame.x(a):.1f}" cy="{frame.y(b):.1f}" r="2.2"/>'
             for a, b in zip(x, y, strict=True)]  # fmt: skip
    drawn.append(frame.line([ends[0], ends[1]], [ends[0], ends[1]], "guide"))
    note = f"{len(x):,} of {count:,} rows" if len(x) < count else ""
    return _figure(title, "".join(drawn) + frame.axes(*labels), _HEIGHT, note)


def curve(title: str, x: NDArray[Any], y: NDArray[Any], labels: tuple[str, str], note: str) -> str:
    """Draw a curve in the unit square, with the diagonal, where guessing lies."""
    frame = _Frame((0.0, 1.0), (0.0, 1.0))
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), 400)).astype(int))
    drawn = frame.line([0, 1], [0, 1], "guide")
    drawn += frame.line(x[keep].tolist(), y[keep].tolist(), "curve")
    return _figure(title, drawn + frame.axes(*labels), _HEIGHT, note)


def matrix(title: str, names: Sequence[str], counts: NDArray[Any], note: str = "") -> str:
    """Draw a confusion matrix: a row for each true class, shaded by its share of that row."""
    size = max(min(56, 320 // len(names)), 7 * len(str(counts.max())) + 6)
    longest = min(max(map(len, names)), _LABEL)
    upright = 7 * longest <= size
    top = 26 if upright else 14 + 7 * longest
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    drawn = []
    for row, name in enumerate(names):
        y, middle = top + row * size, 130 + (row + 0.5) * size
        turn = "" if upright else f' transform="rotate(-90 {middle} {top - 8}) translate(0 4)"'
        drawn.append(
            f'<text x="124" y="{y + size / 2 + 4}" text-anchor="end">{_label(name)}</text>'
            f'<text x="{middle}" y="{top - 8}" text-anchor="{"middle" if upright else "start"}"'
            f"{turn}>{_label(name)}</text>"
        )
        for column in range(len(names)):
            x = 130 + column * size
            drawn.append(
                f'<rect class="fill" x="{x}" y="{y}" width="{size - 2}" height="{size - 2}" '
                f'style="opacity:{0.06 + 0.5 * shares[row, column]:.2f}"/>'
                f'<text x="{x + size / 2 - 1}" y="{y + size / 2 + 4}" text-anchor="middle">'
                f"{counts[row, column]}</text>"
            )
    height, width = top + 6 + size * len(names), 130 + size * len(names)
    return _figure(title, "".join(drawn), height, note or "rows: true class", width)


class _Frame:
    """A coordinate system: numbers to places, and its axes."""

    def __init__(self, across: tuple[float, float], up: tuple[float, float]) -> None:
        self._across, self._up = _widened(across), _widened(up)

    def x(self, value: float) -> float:
        low, high = self._across
        return _LEFT + (float(value) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self._up
        return _HEIGHT - _BOTTOM - (float(value) - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)

    def line(self, x: Sequence[float], y: Sequence[float], style: str) -> str:
        points = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(x, y, strict=True))
        return f'<polyline class="{style}" points="{points}"/>'

    def axes(self, across: str, up: str) -> str:
        """Draw the axes with three numbers each, and their names."""
        bottom, middle = _HEIGHT - _BOTTOM, (_TOP + _HEIGHT - _BOTTOM) / 2
        drawn = [f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH - _RIGHT}"/>']
        for share in (0.0, 0.5, 1.0):
            a = self._across[0] + share * (self._across[1] - self._across[0])
            b = self._up[0] + share * (self._up[1] - self._up[0])
            drawn.append(f'<text x="{self.x(a):.0f}" y="{bottom + 16}" text-anchor="middle">'
                         f"{a:.3g}</text>")  # fmt: skip
            drawn.append(f'<text x="{_LEFT - 6}" y="{self.y(b) + 4:.0f}" text-anchor="end">'
                         f"{b:.3g}</text>")  # fmt: skip
        drawn.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" '
                     f'text-anchor="middle">{html.escape(across)}</text>')  # fmt: skip
        drawn.append(f'<text transform="translate(14 {middle}) rotate(-90)" '
                     f'text-anchor="middle">{html.escape(up)}</text>')  # fmt: skip
        return "".join(drawn)


def _widened(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = float(ends[0]), float(ends[1])
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _label(text: str) -> str:
    return html.escape(text if len(text) <= _LABEL else text[: _LABEL - 1] + "…")


def _figure(title: str, drawn: str, height: float, note: str, width: float = _WIDTH) -> str:
    caption = html.escape(title) + (f" <small>{html.escape(note)}</small>" if note else "")
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<svg viewBox="0 0 {max(width, _WIDTH):.0f} {height:.0f}" role="img">'
        f"<title>{html.escape(title)}</title>{drawn}</svg></figure>"
    )
