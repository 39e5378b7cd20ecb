"""A dataset directory that holds given pages and no samples, for tests that only need pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ocrmem.dataset.schema import SCHEMA_VERSION, PageRow
from ocrmem.dataset.shards import describe, page_writer
from ocrmem.dataset.unfinished_shards import Counts
from ocrmem.files import write_json
from ocrmem.json_files import with_sha256
from ocrmem.rendering.page import Page


def written_page(seed: int, size: int = 256) -> Page:
    """A page with random ink on its upper half, so that half of its vision tokens are blank."""
    bits = np.random.default_rng(seed).integers(0, 256, (size, size // 8), np.uint8)
    bits[size // 2 :] = 0
    return Page(bits, "test")


def write_page_dataset(
    directory: Path, pages: Sequence[Page], *, token_size: int = 32, drop_blank: bool = True
) -> Path:
    """Write the pages as one shard with its manifest; pages of another run under this name are replaced."""
    size = pages[0].size if pages else 256
    shards = []
    if pages:
        path = directory / "pages" / "pages-00000.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with page_writer(path) as writer:
            for page in pages:
                mask = np.packbits(page.ink_mask(token_size)).tobytes()
                ink = int(np.bitwise_count(page.bits).sum())
                writer.add(PageRow(page.hash, page.size, page.atlas_version, ink, mask, page.to_bytes()))
        shards.append(describe(path, directory, len(pages)))
    config = {
        "render": {"page_size": size, "token_size": token_size},
        "model": {"drop_blank_tokens": drop_blank, "context_threshold": 8, "max_seq_length": 256},
    }
    write_manifest(directory, shards, pages=len(pages), config=config)
    return directory


def write_manifest(directory: Path, shards: Sequence[Any], *, pages: int = 0, **fields: Any) -> None:
    """Write the manifest of a dataset that holds these shards."""
    settings = {
        "render": {"page_size": 256, "token_size": 32},
        "model": {"drop_blank_tokens": True, "context_threshold": 8, "max_seq_length": 256},
    }
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "counts": vars(Counts()) | {"conversations": 0, "unique_pages": pages},
        "config": settings,
        "source": {"sha256": "d" * 64},
        "shards": shards,
    }
    write_json(directory / "manifest.json", with_sha256(manifest | fields))
