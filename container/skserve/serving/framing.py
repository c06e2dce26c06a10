"""Where the body of a request ends: after a length, or after its last chunk."""

from __future__ import annotations

import re

# Bytes in the line of a chunk's size with its extensions, and in all trailer fields.
CHUNK_LINE_LIMIT, TRAILER_LIMIT = 1 << 10, 8 << 10

# Digits in the size of a chunk, without leading zeros: with 16 llhttp's sum may overflow.
DIGITS_LIMIT = 15

_DIGITS = re.compile(rb"[0-9A-Fa-f]*")


class BrokenBody(Exception):
    """The body of a request is not chunked as HTTP says."""


class ChunkTooLarge(Exception):
    """A chunk says that it has more bytes than any body may have: `size` of them."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class Length:
    """Where a body with a length ends."""

    def __init__(self, length: int) -> None:
        self._left = length

    def piece(self, buffer: bytes, at: int) -> int:
        """Return where the piece that begins at `at` ends, which may be the end of the buffer."""
        return min(len(buffer), at + self._left)

    def note(self, piece: memoryview) -> None:
        """Count a piece that llhttp is about to see."""
        self._left -= len(piece)


class Chunks:
    """Where the next piece of a chunked body ends: a line, or the data of a chunk."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line = b""  # the line of a size, as far as it is there
        self._left = 0  # bytes of this chunk, and of the line break behind it
        self._trailer: int | None = None  # bytes in the trailer so far, behind the last chunk

    def piece(self, buffer: bytes, at: int) -> int:
        """Return where the piece that begins at `at` ends, which may be the end of the buffer."""
        if self._left:
            return min(len(buffer), at + self._left)
        return buffer.find(b"\n", at) + 1 or len(buffer)

    def note(self, piece: memoryview) -> None:
        """Count a piece that llhttp is about to see. Raises BrokenBody or ChunkTooLarge."""
        if self._left:
            self._left -= len(piece)
        elif self._trailer is not None:
            self._trailer += len(piece)
            if self._trailer > TRAILER_LIMIT:
                raise BrokenBody("The trailer is too long.")
        else:
            self._line += piece
            if len(self._line) > CHUNK_LINE_LIMIT:
                raise BrokenBody("A chunk's extension is too long.")
            self._size()

    def _size(self) -> None:
        digits = _DIGITS.match(self._line)[0]  # type: ignore[index]
        if len(digits.lstrip(b"0")) > DIGITS_LIMIT:
            raise BrokenBody("A chunk says that it has more bytes than there are.")
        size = int(b"0" + digits, 16)
        if size > self._limit and len(digits) < len(self._line):
            raise ChunkTooLarge(size)
        if self._line.endswith(b"\n"):
            self._line = b""
            if size:
                self._left = size + 2
            else:
                self._trailer = 0
