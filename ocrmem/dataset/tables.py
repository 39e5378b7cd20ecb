"""The columns that expectations look at: worked out from what is stored, not copied from what it claims.

Conversation text stays out of these tables, and so out of the HTML that is made of them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from ocrmem.console import progress_bar
from ocrmem.dataset.loader import MemoryDataset
from ocrmem.dataset.manifest import shards_of
from ocrmem.dataset.schema import SPLITS, PageRow, Sample
from ocrmem.dataset.shards import read_pages
from ocrmem.files import sha256_file, sha256_json

Table = dict[str, list[Any]]
_SAMPLE_COLUMNS = (
    "id",
    "unknown_pages",
    "has_memory",
    "over_threshold",
    "memory_tokens",
    "kept_tokens_of_pages",
    "compression_ratio",
    "answer_characters",
    "answer_tokens",
    "sequence_tokens",
    "sides_of_conversation",
    "sides_of_content",
)
_PAGE_COLUMNS = (
    "hash",
    "hash_of_bits",
    "size",
    "bytes_of_bits",
    "kept_tokens",
    "ink_mask",
    "ink_mask_of_bits",
    "ink_share",
)


def check_tables(dataset: MemoryDataset) -> dict[str, Table]:
    """Columns by table: "samples", "pages", "shards"."""
    return {"samples": _samples(dataset), "pages": _pages(dataset), "shards": _shards(dataset)}


def _samples(dataset: MemoryDataset) -> Table:
    threshold = dataset.manifest["config"]["model"]["context_threshold"]
    stored = [(split, sample) for split in SPLITS for sample in dataset.samples(split)]
    kept = {name: int(dataset.kept(name).sum()) for name in dataset.page_hashes()}
    by_conversation = _sides((sample.conversation_id, split) for split, sample in stored)
    contents = [_content(sample) for _, sample in stored]
    by_content = _sides(
        (content, split) for content, (split, sample) in zip(contents, stored, strict=True) if sample.has_memory
    )
    table: Table = {name: [] for name in _SAMPLE_COLUMNS}
    for (_, sample), content in zip(stored, contents, strict=True):
        table["id"].append(sample.id)
        table["unknown_pages"].append(sum(name not in kept for name in sample.pages))
        table["has_memory"].append(sample.has_memory)
        table["over_threshold"].append(sample.history_tokens > threshold)
        table["memory_tokens"].append(sample.memory_tokens)
        table["kept_tokens_of_pages"].append(sum(kept.get(name, 0) for name in sample.pages))
        table["compression_ratio"].append(sample.compression_ratio if sample.has_memory else None)
        table["answer_characters"].append(len(sample.answer.strip()))
        table["answer_tokens"].append(sample.answer_tokens)
        table["sequence_tokens"].append(sample.sequence_tokens)
        table["sides_of_conversation"].append(len(by_conversation[sample.conversation_id]))
        table["sides_of_content"].append(len(by_content[content]) if sample.has_memory else 1)
    return table


def _sides(pairs: Iterable[tuple[str, str]]) -> dict[str, set[bool]]:
    """For each key, on which sides it is: True for training, False for held out."""
    sides: dict[str, set[bool]] = defaultdict(set)
    for key, split in pairs:
        sides[key].add(split == "train")
    return sides


def _content(sample: Sample) -> str:
    messages = [*sample.history, *sample.prompt]
    return sha256_json([[message.role, message.content] for message in messages])


def _pages(dataset: MemoryDataset) -> Table:
    table: Table = {name: [] for name in _PAGE_COLUMNS}
    shards = shards_of(dataset.manifest, "pages")
    with progress_bar("reading pages", sum(shard["rows"] for shard in shards)) as bar:
        for shard in shards:
            for page in read_pages(dataset.path / shard["path"]):
                _add_page(table, page, dataset.page_size, dataset.token_size)
                bar.advance()
    return table


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


def _shards(dataset: MemoryDataset) -> Table:
    shards = dataset.manifest["shards"]
    return {
        "path": [shard["path"] for shard in shards],
        "sha256": [shard["sha256"] for shard in shards],
        "sha256_of_file": [sha256_file(dataset.path / shard["path"]) for shard in shards],
    }
