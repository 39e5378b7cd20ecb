"""Records of a file, whatever it is packed in: JSONL, a JSON document, either with gzip or in UTF-16, or parquet."""

from __future__ import annotations

import codecs
import gzip
import json
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ocrmem.conversations.lines import MAX_LINE_BYTES, lines_of
from ocrmem.conversations.parse import decode_json
from ocrmem.conversations.sources import shown_path
from ocrmem.conversion.json_stream import Unusable, read_values
from ocrmem.errors import DataError, Problem

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_UTF_16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_PACKED = {b"PK\x03\x04": ("a zip archive", "unzip"), b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unzstd")}
_ROWS = 256  # of a parquet file in memory at once


@dataclass(frozen=True)
class Record:
    """One value of a file.

    Attributes:
        place: where it is, for a person.
        value: as JSON has it.
        problem: why there is no value.
        raw: its bytes in the file; empty if they are not known.
    """

    place: str
    value: Any = None
    problem: Problem | None = None
    raw: bytes = b""


@dataclass(frozen=True)
class Container:
    """A file's records, and what they are packed in."""

    kind: str
    records: Iterator[Record]


def open_container(path: Path, handle: BinaryIO) -> Container:
    """Return what a file holds.

    Args:
        handle: the file, open at its beginning; the records are read from it as they are asked for.

    Raises:
        DataError: it is none of these; reading a record raises it where the file is damaged.
    """
    name = shown_path(path)
    head = handle.read(4)
    handle.seek(0)
    for signature, (what, tool) in _PACKED.items():
        if head.startswith(signature):
            raise DataError.of(name, f"is {what}", f"Unpack it with {tool}, and name the files that were in it")
    if head.startswith(_PARQUET):
        return Container("parquet", _parquet(name, handle))
    if head.startswith(_GZIP):
        inner = _json(name, cast(BinaryIO, gzip.GzipFile(fileobj=handle)))
        return Container(f"{inner.kind} with gzip", _unpacked(name, inner.records))
    if encoding := _UTF_16.get(head[:2]):
        inner = _json(name, _as_utf8(name, handle, encoding))
        return Container(f"{inner.kind} in UTF-16", inner.records)
    return _json(name, handle)


def _json(name: str, handle: BinaryIO) -> Container:
    try:
        as_lines, first = _has_lines(handle)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _cut_off(name, error) from None
    handle.seek(0)
    if handle.read(3) != codecs.BOM_UTF8:
        handle.seek(0)
    if as_lines:
        return Container("JSONL", _lines(name, handle))
    if first not in (b"[", b"{"):
        if not first:
            raise DataError.of(name, "is empty", "Name a file with conversations")
        remedy = "Give JSON, JSONL or parquet; notes in plain text have no answer to learn: ocrmem ask reads them"
        raise DataError.of(name, "is not JSON", remedy)
    return Container("a JSON list" if first == b"[" else "a JSON object", _document(name, handle))


def _has_lines(handle: BinaryIO) -> tuple[bool, bytes]:
    """Return whether each line is a value of its own, and the first byte."""
    opening: list[bytes] = []
    while len(opening) < 2 and (line := handle.readline(MAX_LINE_BYTES)):
        if stripped := line.strip().removeprefix(codecs.BOM_UTF8):
            opening.append(stripped)
    whole = [_is_json(line) for line in opening]
    first = opening[0][:1] if opening else b""
    if not opening or first == b"{":
        return whole[:1] == [True] or (whole[1:] == [True] and opening[1].startswith(b"{")), first
    return len(whole) == 2 and all(whole), first


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line, parse_int=len)
    except (ValueError, RecursionError):
        return False
    return True


def _lines(name: str, handle: BinaryIO) -> Iterator[Record]:
    for line in lines_of(handle):
        place = f"{name}:{line.number}"
        if not line.whole:
            message = f"is longer than the {MAX_LINE_BYTES >> 20} MiB that one conversation may have"
            yield Record(place, None, Problem(place, message, "Split it into several conversations"), line.head)
            line.finish()
        elif line.head.strip():
            value, fault = decode_json(line.head)
            yield Record(place, value, Problem(place, *fault) if fault else None, line.head)


def _document(name: str, handle: BinaryIO) -> Iterator[Record]:
    for number, value in enumerate(read_values(handle, name), 1):
        place = f"{name}: item {number}"
        if isinstance(value, Unusable):
            yield Record(place, None, Problem(place, f"is broken JSON: {value}", "Correct it, or leave it out"))
        else:
            yield Record(place, value)


def _parquet(name: str, handle: BinaryIO) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(handle).iter_batches(batch_size=_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield Record(f"{name}: row {number}", row)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        message = f"is a damaged parquet file ({str(error).splitlines()[0].rstrip('.')}) after {number} rows"
        raise DataError.of(name, message, "Write or download it again") from None


def _unpacked(name: str, records: Iterator[Record]) -> Iterator[Record]:
    try:
        yield from records
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _cut_off(name, error) from None


def _cut_off(name: str, error: Exception) -> DataError:
    return DataError.of(name, f"is damaged gzip ({error})", "Download or pack it again; `gzip -t` tests it")


def _as_utf8(name: str, handle: BinaryIO, encoding: str) -> BinaryIO:
    """Return a file's text as UTF-8, in a file without a name."""
    handle.seek(2)
    decoder = codecs.getincrementaldecoder(encoding)()
    target = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115  # it goes when its last reader does
    try:
        while piece := handle.read(1 << 20):
            target.write(decoder.decode(piece).encode("utf-8"))
        target.write(decoder.decode(b"", final=True).encode("utf-8"))
    except UnicodeError as error:
        raise DataError.of(name, f"is damaged UTF-16 ({error})", "Save it as UTF-8") from None
    target.seek(0)
    return target
