"""How large what a body unpacks to may be."""

from __future__ import annotations


def expanded_limit(size: int) -> int:
    """Return how many bytes may come out of a compressed file of `size` bytes.

    Numbers shrink to a tenth, ones and zeros to a hundredth; what shrinks to a thousandth is a
    bomb, or is sent as well without compression.
    """
    return min(256 << 20, (1 << 20) + 100 * size)
