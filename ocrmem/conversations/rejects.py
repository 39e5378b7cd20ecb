"""rejects.jsonl: every line that was left out, unchanged, with its place and the reason.

One object a rejected line: ``place``, ``reason``, and either ``line`` (its text) or ``line_base64`` (its bytes, if they
are not UTF-8 or too many to hold). A file that is not JSONL at all is one entry.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from ocrmem.errors import DataError, Problem
from ocrmem.files import replacing_file


class Rejects:
    """The rejected lines of one reading; ``count`` is their number so far."""

    def __init__(self, path: Path | None, handle: BinaryIO | None) -> None:
        self._path, self._handle = path, handle
        self.count = 0

    def add(self, place: str, problems: list[Problem], content: bytes | Iterator[bytes]) -> None:
        """Write one rejected line.

        Args:
            place: ``file:line``.
            problems: its reasons.
            content: the line without its line feed, whole or in pieces.

        Raises:
            DataError: the file cannot be written.
        """
        self.count += 1
        if self._handle is None:
            return
        reason = "; ".join(problem.message for problem in problems)
        head = json.dumps({"place": place, "reason": reason}, ensure_ascii=False)[:-1].encode("utf-8")
        try:
            self._handle.writelines(chain([head], _content(content), [b"}\n"]))
        except OSError as error:
            raise _unwritable(self._path, error) from None


@contextmanager
def rejects_file(path: Path | None) -> Iterator[Rejects]:
    """Open rejects.jsonl, which takes its name if the block succeeds; None writes nothing and only counts.

    Raises:
        DataError: the file cannot be written.
    """
    if path is None:
        yield Rejects(None, None)
        return
    of_another: OSError | None = None  # what reads the rejected lines may meet one of its own
    try:
        with replacing_file(path) as handle:
            try:
                yield Rejects(path, handle)
            except OSError as error:
                of_another = error
                raise
    except OSError as error:
        if error is of_another:
            raise
        raise _unwritable(path, error) from None


def _unwritable(path: Path | None, error: OSError) -> DataError:
    return DataError.of(str(path), f"cannot be written ({error.strerror})", "Check disk and permissions")


def _content(content: bytes | Iterator[bytes]) -> Iterator[bytes]:
    if isinstance(content, bytes):
        try:
            yield b', "line": ' + json.dumps(content.decode("utf-8"), ensure_ascii=False).encode("utf-8")
            return
        except UnicodeDecodeError:
            content = iter([content])
    yield b', "line_base64": "'
    rest = b""  # base64 joins only at multiples of three bytes
    for piece in content:
        piece = rest + piece
        whole = len(piece) // 3 * 3
        yield base64.b64encode(piece[:whole])
        rest = piece[whole:]
    yield base64.b64encode(rest) + b'"'
