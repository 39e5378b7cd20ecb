"""stdin, stdout and stderr that are closed, full, or gone with their reader."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO


def print_out(text: str, end: str = "\n") -> OSError | None:
    """Print to stdout; return what kept it from being written."""
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        _discard(sys.stdout)
        return error
    return None


def show_every_character(stream: TextIO) -> None:
    """Let a console of few characters show the others in escapes."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


class Patient:
    """stderr, for notes and progress: a reader that has gone, or a full disk behind it, does not stop the work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            _discard(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            _discard(self._stream)


def open_closed_streams() -> None:
    """Point streams that were closed from outside nowhere: files opened later would get their numbers and output."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # as long as the process


def _discard(stream: TextIO) -> None:
    """Send what a broken stream still holds, and all that follows, nowhere: Python would complain of it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
