"""The columns that expectations look at, computed from what is stored, not copied from what it claims.

They come in parts of bounded size, so a dataset of any size can be checked. What must hold over all parts
(no id twice, nothing on both sides) is worked out beforehand from digests of 16 bytes. Conversation text stays
out of these tables, and so out of the page that is made of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from ocrmem.console import progress_bar
from ocrmem.conversations import SPLITS, Message
from ocrmem.dataset.hash_index import occurrences, sides
from ocrmem.dataset.manifest import shards_of
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.schema import PageRow, Sample
from ocrmem.dataset.shards import read_pages

Table = dict[str, list[Any]]
PART_ROWS = 20_000
_SHORT = 16  # bytes of a digest that distinguish rows
_PAGE_COLUMNS = (
    "hash",
    "place",
    "hash_of_bits",
    "unique_hash",
    "size",
    "bytes_of_bits",
    "kept_tokens",
    "ink_mask",
    "ink_mask_of_bits",
    "ink_share",
    "blank_share",
)
_SAMPLE_COLUMNS = (
    "id",
    "place",
    "unique_id",
    "unknown_pages",
    "has_memory",
    "over_threshold",
    "history_tokens",
    "page_count",
    "memory_tokens",
    "kept_tokens_of_pages",
    "compression_ratio",
    "answer_characters",
    "answer_tokens",
    "sequence_tokens",
    "sides_of_conversation",
    "sides_of_content",
)


def check_tables(dataset: MemoryDataset) -> Iterator[tuple[str, Table]]:
    """Yield columns of the tables "samples" and "pages", in parts of at most `PART_ROWS` rows.

    Every table comes once at least, and its parts after each other. ``place`` is where a row is stored, such as
    ``samples/train-00000.parquet[3]``, counted from 0.
    """
    yield from (("samples", part) for part in _samples(dataset))
    yield from (("pages", part) for part in _pages(dataset))


def _samples(dataset: MemoryDataset) -> Iterator[Table]:
    threshold = dataset.manifest["config"]["model"]["context_threshold"]
    names, kept = dataset.page_hashes(), dataset.kept_counts()
    all_rows_of_id, all_sides, all_content_sides = _over_all(dataset)
    stored = (sample for split in SPLITS for sample in dataset.samples(split))
    places_of_rows = _places(dataset, [f"samples/{split}" for split in SPLITS])
    for start in range(0, max(len(all_sides), 1), PART_ROWS):
        table: Table = {name: [] for name in _SAMPLE_COLUMNS}
        for sample in islice(stored, PART_ROWS):
            places = [names.find(name) for name in sample.pages]
            found = [place for place in places if place is not None]
            table["id"].append(sample.id)
            table["place"].append(next(places_of_rows))
            table["unknown_pages"].append(len(places) - len(found))
            table["has_memory"].append(sample.has_memory)
            table["over_threshold"].append(sample.history_tokens > threshold)
            table["history_tokens"].append(sample.history_tokens)
            table["page_count"].append(len(sample.pages))
            table["memory_tokens"].append(sample.memory_tokens)
            table["kept_tokens_of_pages"].append(int(kept[found].sum()))
            table["compression_ratio"].append(sample.compression_ratio if sample.has_memory else None)
            table["answer_characters"].append(len(sample.answer.strip()))
            table["answer_tokens"].append(sample.answer_tokens)
            table["sequence_tokens"].append(sample.sequence_tokens)
        part = slice(start, start + PART_ROWS)
        table["unique_id"] = list(map(_told_apart, table["id"], all_rows_of_id[part].tolist()))
        table["sides_of_conversation"] = all_sides[part].tolist()
        table["sides_of_content"] = all_content_sides[part].tolist()
        yield table


def _over_all(dataset: MemoryDataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, for every sample in stored order, the rows with its id and the sides of its conversation and its content.

    Returns:
        Integers [n] each. Content counts only where it is memory.
    """
    count = sum(len(dataset.samples(split)) for split in SPLITS)
    ids, conversations, contents = (np.empty((count, _SHORT), np.uint8) for _ in range(3))
    trained, memory = np.empty(count, bool), np.empty(count, bool)
    row = 0
    with progress_bar("reading samples", count) as bar:
        for split in SPLITS:
            for sample in dataset.samples(split):
                ids[row] = _digest(sample.id)
                conversations[row] = _digest(sample.conversation_id)
                contents[row] = _content(sample)
                trained[row], memory[row] = split == "train", sample.has_memory
                row += 1
                bar.advance()
    return occurrences(ids), sides(conversations, trained), sides(contents, trained, memory)


def _content(sample: Sample) -> np.ndarray:
    """Return a digest of history and question. Messages are hashed one by one, since many samples share them."""
    both = b"".join(map(_message_digest, (*sample.history, *sample.prompt)))
    return np.frombuffer(hashlib.sha256(both).digest()[:_SHORT], np.uint8)


@lru_cache(maxsize=1 << 14)
def _message_digest(message: Message) -> bytes:
    return hashlib.sha256(f"{message.role}\n{message.content}".encode()).digest()


def _digest(text: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(text.encode("utf-8")).digest()[:_SHORT], np.uint8)


def _pages(dataset: MemoryDataset) -> Iterator[Table]:
    shards = shards_of(dataset.manifest, "pages")
    rows_of_hash = iter(occurrences(dataset.page_hashes().digests).tolist())
    places = _places(dataset, ["pages"])
    rows = (page for shard in shards for page in read_pages(dataset.path / shard["path"]))
    with progress_bar("reading pages", sum(shard["rows"] for shard in shards)) as bar:
        for _ in range(0, max(len(dataset.page_hashes()), 1), PART_ROWS):
            table: Table = {name: [] for name in _PAGE_COLUMNS}
            for page in islice(rows, PART_ROWS):
                _add_page(table, page, dataset.page_size, dataset.token_size)
                table["place"].append(next(places))
                table["unique_hash"].append(_told_apart(page.hash, next(rows_of_hash)))
                bar.advance()
            yield table


def _places(dataset: MemoryDataset, kinds: Sequence[str]) -> Iterator[str]:
    """Yield where each row is stored."""
    for kind in kinds:
        for shard in shards_of(dataset.manifest, kind):
            yield from (f"{shard['path']}[{row}]" for row in range(shard["rows"]))


def _told_apart(name: str, rows: int) -> str:
    """Return a name that one row has; of several rows, something else."""
    return name if rows == 1 else f"{name} (in {rows} rows)"


def _add_page(table: Table, page: PageRow, size: int, token_size: int) -> None:
    digest = hashlib.sha256(page.atlas_version.encode("utf-8") + b"\0" + page.bits)
    table["hash"].append(page.hash)
    table["hash_of_bits"].append(digest.hexdigest())
    table["size"].append(page.size)
    table["bytes_of_bits"].append(len(page.bits))
    pixels = np.frombuffer(page.bits, np.uint8)
    if len(pixels) != size * size // 8:
        # page_bytes says what is wrong; there are no patches to look at.
        pixels = np.zeros(size * size // 8, np.uint8)
    side = size // token_size
    patches = pixels.reshape(side, token_size, side, token_size // 8)
    ink = np.bitwise_count(patches).sum(axis=(1, 3), dtype=np.int64).reshape(-1)
    kept = int((ink > 0).sum())
    table["kept_tokens"].append(kept)
    table["ink_mask"].append(page.ink_mask.hex())
    table["ink_mask_of_bits"].append(np.packbits(ink > 0).tobytes().hex())
    table["ink_share"].append(int(ink.sum()) / (kept * token_size**2) if kept else 0.0)
    table["blank_share"].append(1 - kept / len(ink))
