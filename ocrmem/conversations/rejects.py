"""rejects.jsonl: every line that was left out, unchanged, with its place and the reason.

One object a rejected line: ``place``, ``reason``, and either ``line`` (its text) or ``line_base64`` (its bytes, if they
are not UTF-8 or too many to hold). A file that is not JSONL at all is one entry.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ocrmem.errors import DataError, Problem


class RejectsFile:
    """A context manager; the file takes its name only if the block succeeds.

    Args:
        path: where to write; None writes nothing and only counts.

    Attributes:
        count: lines rejected so far.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._handle: BinaryIO | None = None
        self.count = 0

    def __enter__(self) -> RejectsFile:
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._handle = self._temporary.open("wb")
            except OSError as error:
                raise self._unwritable(error) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self._path is None or self._handle is None:
            return
        try:
            if kind is None:
                self._handle.flush()
                os.fsync(self._handle.fileno())
                self._handle.close()
                self._temporary.replace(self._path)
        except OSError as error:
            raise self._unwritable(error) from None
        finally:
            self._handle.close()
            self._temporary.unlink(missing_ok=True)

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
            self._handle.write(head)
            _write_content(self._handle, content)
            self._handle.write(b"}\n")
        except OSError as error:
            raise self._unwritable(error) from None

    @property
    def _temporary(self) -> Path:
        path = self._path or Path()
        # A fixed name, so that the next run overwrites what a killed one leaves.
        return path.with_name(f".{path.name}.tmp")

    def _unwritable(self, error: OSError) -> DataError:
        problem = Problem(str(self._path), f"cannot be written ({error.strerror})", "Check disk and permissions")
        return DataError(problem)


def _write_content(handle: BinaryIO, content: bytes | Iterator[bytes]) -> None:
    if isinstance(content, bytes):
        try:
            text = json.dumps(content.decode("utf-8"), ensure_ascii=False)
        except UnicodeDecodeError:
            content = iter([content])
        else:
            handle.write(b', "line": ' + text.encode("utf-8"))
            return
    handle.write(b', "line_base64": "')
    rest = b""  # base64 joins only at multiples of three bytes
    for piece in content:
        piece = rest + piece
        whole = len(piece) // 3 * 3
        handle.write(base64.b64encode(piece[:whole]))
        rest = piece[whole:]
    handle.write(base64.b64encode(rest) + b'"')
