"""The values of a JSON document, one after the other, without the whole document in memory.

A document is a list, whose items are given, or values that follow each other, each on as many lines as it likes.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from ocrmem.conversations.parse import no_constant, unique_keys
from ocrmem.errors import DataError

MAX_VALUE = 256 << 20  # characters of one value
_CHUNK = 1 << 20
_EDGE = 16  # a fault so near to what has been read may be none once more is read
_REMEDY = "The file was cut off or edited; export it again"


class Unusable(ValueError):
    """A value that is JSON and must not be used: a key twice, NaN, a number of thousands of digits."""


_STRICT = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=no_constant)
_LENIENT = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len)  # to find a value's end


def read_values(handle: BinaryIO, place: str) -> Iterator[Any]:
    """Yield each value of a document in UTF-8; one that must not be used as an `Unusable`.

    Args:
        handle: at the document's beginning.
        place: the file's name, for errors.

    Raises:
        DataError: the document is damaged; with its line.
    """
    text = _Text(handle, place)
    if text.next() != "[":
        while text.next():
            yield text.value()
        return
    text.skip()
    if text.next() == "]":
        text.skip()
    else:
        while True:
            yield text.value()
            after = text.next()
            text.skip()
            if after == "]":
                break
            if after != ",":
                raise text.damaged("a comma or the list's end is missing" if after else "its list does not end")
    if text.next():
        raise text.damaged("something follows its list")


class _Text:
    """A window on the document's text that grows until a value is whole."""

    def __init__(self, handle: BinaryIO, place: str) -> None:
        self._handle, self._place = handle, place
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at, self._line, self._ended = "", 0, 1, False

    def next(self) -> str:
        """Return the next character that is no space, without taking it; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text) or not self._grow():
                return self._text[self._at : self._at + 1]

    def skip(self) -> None:
        """Take one character."""
        self._at += 1

    def value(self) -> Any:
        """Take the next value."""
        self.next()
        value, fault = None, None
        while True:
            try:
                value, end = (_LENIENT if fault else _STRICT).raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut_off = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _EDGE
                if not (cut_off and self._grow()):
                    raise self.damaged(f"{error.msg} at column {error.colno}", error.pos) from None
            except RecursionError:
                raise self.damaged("nested too deeply") from None
            except ValueError as error:
                fault = Unusable(str(error))
            else:
                # A number may go on in what has not been read.
                if end < len(self._text) - _EDGE or self._text[end - 1] in '}]"' or not self._grow():
                    self._at = end
                    return fault or value

    def damaged(self, what: str, at: int | None = None) -> DataError:
        line = self._line + self._text.count("\n", 0, self._at if at is None else at)
        return DataError.of(f"{self._place}:{line}", f"is broken JSON: {what}", _REMEDY)

    def _grow(self) -> bool:
        """Read as much again as is waiting, so that a long value is looked at a few times only."""
        if self._ended:
            return False
        self._line += self._text.count("\n", 0, self._at)
        waiting = self._text[self._at :]
        self._at, self._text = 0, waiting
        if len(waiting) > MAX_VALUE:
            raise self.damaged(f"one value has more than {MAX_VALUE >> 20} million characters")
        raw = self._handle.read(max(_CHUNK, len(waiting)))
        self._ended = not raw
        try:
            self._text += self._decoder.decode(raw, final=self._ended)
        except UnicodeDecodeError as error:
            self._line += error.object.count(b"\n", 0, error.start)
            raise self.damaged(f"byte 0x{error.object[error.start]:02x} is not UTF-8", len(waiting)) from None
        if (nul := self._text.find("\x00", len(waiting))) >= 0:
            raise self.damaged("NUL bytes in it", nul)
        return True
