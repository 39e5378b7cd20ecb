"""Samples and pages, and their form in parquet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from ocrmem.conversations import Message, Role, TurnSample
from ocrmem.families import with_marks

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 2
PAGE_ROWS = 128  # pages of a row group: 16 MiB of bits at 1024 px, so readers and writers stay small
SAMPLE_ROWS = 256  # what is decoded to read any one of them
_BAND = 16  # px; a cell's height, so that a letter's 16 bytes lie together and zstd finds them again


@dataclass(frozen=True, slots=True)
class Sample(TurnSample):
    """One assistant turn, ready for a sequence. Its history is on pages if the sample has memory, else text.

    Attributes:
        history_tokens: text tokens of ``history`` as the chat template writes it.
        pages: hashes of the history's pages, oldest first; empty without memory.
        memory_tokens: vision tokens of those pages that enter the sequence.
        sequence_tokens: length of the whole training sequence, memory included.
        answer_tokens: supervised tokens: the answer and its end token.
        dropped_tokens: content tokens left out so that the sequence fits max_seq_length.
        dropped_pages: oldest pages left out because of render.max_pages.
        pictured_tokens: of ``history_tokens``, those whose text is on ``pages``; None means all.
    """

    history_tokens: int
    pages: tuple[str, ...]
    memory_tokens: int
    sequence_tokens: int
    answer_tokens: int
    dropped_tokens: int
    dropped_pages: int
    pictured_tokens: int | None = None

    @property
    def has_memory(self) -> bool:
        return bool(self.pages)

    @property
    def compression_ratio(self) -> float:
        """Text tokens on the pages per token that memory takes in the sequence, its two marks included.

        Text on dropped pages does not count: leaving text out is not compression. 0.0 without memory.
        """
        memory = with_marks(self.memory_tokens)
        return self.text_tokens / memory if memory else 0.0

    @property
    def text_tokens(self) -> int:
        """Text tokens of the history, without those whose pages were dropped."""
        return self.history_tokens if self.pictured_tokens is None else self.pictured_tokens


_SAMPLE_FIELDS = tuple(field.name for field in fields(Sample))


@dataclass(frozen=True, slots=True)
class PageRow:
    """One page as it is stored.

    Attributes:
        hash: hex sha256 of bits and atlas version; the page's name.
        size: px of each side.
        atlas_version: which glyphs drew it.
        ink_pixels: black pixels.
        ink_mask: one bit a vision token, row-major, 1 where its patch has ink; padded to whole bytes.
        bits: packed pixels, 1 = ink, row-major, the leftmost pixel in the highest bit.
    """

    hash: str
    size: int
    atlas_version: str
    ink_pixels: int
    ink_mask: bytes
    bits: bytes


def samples_schema() -> pa.Schema:
    """Return the Arrow schema of samples/*.parquet."""
    import pyarrow as pa

    message = pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())])
    types: dict[str, Any] = {
        "id": pa.string(),
        "conversation_id": pa.string(),
        "split": pa.string(),
        "turn": pa.int32(),
        "history": pa.list_(message),
        "prompt": pa.list_(message),
        "answer": pa.string(),
        "history_tokens": pa.int32(),
        "pages": pa.list_(pa.string()),
        "memory_tokens": pa.int32(),
        "sequence_tokens": pa.int32(),
        "answer_tokens": pa.int32(),
        "dropped_tokens": pa.int32(),
        "dropped_pages": pa.int32(),
        "pictured_tokens": pa.int32(),
    }
    return pa.schema([pa.field(name, kind) for name, kind in types.items()])


def pages_schema() -> pa.Schema:
    """Return the Arrow schema of pages/*.parquet."""
    import pyarrow as pa

    types: dict[str, Any] = {
        "hash": pa.string(),
        "size": pa.int32(),
        "atlas_version": pa.string(),
        "ink_pixels": pa.int32(),
        "ink_mask": pa.binary(),
        "bits": pa.binary(),
    }
    return pa.schema([pa.field(name, kind) for name, kind in types.items()])


def samples_table(samples: Sequence[Sample]) -> pa.Table:
    """Return samples as an Arrow table."""
    import pyarrow as pa

    return pa.Table.from_pylist([_sample_row(sample) for sample in samples], schema=samples_schema())


def pages_table(pages: Sequence[PageRow]) -> pa.Table:
    """Return pages as an Arrow table."""
    import pyarrow as pa

    schema = pages_schema()
    columns = [[getattr(page, name) for page in pages] for name in schema.names]
    columns[schema.names.index("bits")] = [banded(page.bits) for page in pages]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def banded(bits: bytes) -> bytes:
    """Return a page's bits in the order in which they are stored.

    Bands of 16 px, in each band columns of 8 px from left to right, in each column the bytes from the top down. They
    compress two to three times as well as rows do.

    Args:
        bits: packed rows of a square page, S * S / 8 bytes. Anything else is returned as it is: its
            length shows `check` what is wrong.
    """
    bands = _bands(len(bits))
    if bands is None:
        return bits
    count, height, columns = bands
    return np.frombuffer(bits, np.uint8).reshape(count, height, columns).transpose(0, 2, 1).tobytes()


def unbanded(stored: bytes) -> bytes:
    """Return what `banded` was given."""
    bands = _bands(len(stored))
    if bands is None:
        return stored
    count, height, columns = bands
    return np.frombuffer(stored, np.uint8).reshape(count, columns, height).transpose(0, 2, 1).tobytes()


def _bands(length: int) -> tuple[int, int, int] | None:
    """Return number and height of the bands of a page of so many bytes, and its columns."""
    size = isqrt(8 * length)
    if not size or size % 8 or size * size != 8 * length:
        return None
    height = _BAND if size % _BAND == 0 else _BAND // 2
    return size // height, height, size // 8


def read_samples(table: pa.Table, known: dict[tuple[str, str], Message] | None = None) -> list[Sample]:
    """Read samples from an Arrow table. Messages that many samples share are one object.

    Args:
        known: messages that exist already, by role and content; those that are met come to them.
    """
    known = {} if known is None else known

    def messages(rows: Iterable[dict[str, str]]) -> tuple[Message, ...]:
        return tuple(_shared_message(known, row["role"], row["content"]) for row in rows)

    samples = []
    for batch in table.to_batches(max_chunksize=256):
        for row in batch.to_pylist():
            row["history"] = messages(row["history"])
            row["prompt"] = messages(row["prompt"])
            row["pages"] = tuple(row["pages"])
            samples.append(Sample(**row))
    return samples


def _sample_row(sample: Sample) -> dict[str, Any]:
    row = {name: getattr(sample, name) for name in _SAMPLE_FIELDS}
    for name in ("history", "prompt"):
        row[name] = [{"role": message.role, "content": message.content} for message in row[name]]
    return row


def _shared_message(known: dict[tuple[str, str], Message], role: Any, content: str) -> Message:
    message = known.get((role, content))
    if message is None:
        checked: Role = role
        message = known[role, content] = Message(checked, content)
    return message
