"""Lines of a file as bytes, of which no more than a bound is in memory.

A longer line is a stream: a line of 50 MB is refused, and can still be copied, without ever being in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 16 << 20
_CHUNK = 1 << 20


@dataclass
class Line:
    """A line without its line feed.

    Attributes:
        number: from 1.
        head: the line, or its first bytes when ``whole`` is false.
        whole: false for a line over the bound; then `chunks` gives all of it, once.
        start: byte of the file at which it begins.
        size: length in bytes; of a line over the bound after `chunks` has given all of it.
    """

    number: int
    head: bytes
    whole: bool
    start: int
    size: int
    _handle: BinaryIO | None

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the line, piece by piece."""
        yield self.head
        handle, self._handle = self._handle, None
        while handle and (piece := handle.readline(_CHUNK)):
            text = piece.removesuffix(b"\n")
            self.size += len(text)
            yield text
            if text != piece:
                return

    def finish(self) -> None:
        """Read past what `chunks` has not given, to the next line."""
        for _ in self.chunks():
            pass


def read_lines(path: Path, max_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Yield the lines of a file. A `Line` is valid until the next one is asked for.

    Args:
        max_bytes: longest line that is held in memory.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as handle:
        yield from lines_of(handle, max_bytes)


def lines_of(handle: BinaryIO, max_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Yield the lines of an open file, as `read_lines` does."""
    number = start = 0
    while head := handle.readline(max_bytes + 1):
        number += 1
        whole = head.endswith(b"\n") or len(head) <= max_bytes
        head = head.removesuffix(b"\n")
        line = Line(number, head, whole, start, len(head), None if whole else handle)
        yield line
        line.finish()
        start += line.size + 1
