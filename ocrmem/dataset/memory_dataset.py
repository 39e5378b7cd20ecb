"""MemoryDataset: read access to what `render` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocrmem.conversations import SPLITS, Split
from ocrmem.dataset.hash_index import HashIndex, digests_of
from ocrmem.dataset.manifest import read_manifest, shards_of
from ocrmem.dataset.schema import pages_schema, unbanded
from ocrmem.dataset.shards import changed, open_shard, reading
from ocrmem.dataset.stored_samples import StoredSamples
from ocrmem.errors import DataError, OcrMemError
from ocrmem.facts import tokens_per_page
from ocrmem.json_files import DatasetManifest
from ocrmem.rendering import Page

if TYPE_CHECKING:
    import pyarrow.parquet as pq


class MemoryDataset:
    """Samples and pages on disk, read when they are asked for, a row group at a time.

    In memory are the pages' names and masks: 76 bytes a page of 256 vision tokens. It can be pickled: a copy
    opens the files itself.

    Attributes:
        path: the directory.
        manifest: what manifest.json says.
        page_size: px of a page's side.
        token_size: px of one vision token's patch.
        tokens_per_page: vision tokens of a page, blank ones included.
    """

    def __init__(self, path: Path, manifest: DatasetManifest) -> None:
        self.path = path
        self.manifest = manifest
        render = manifest["config"]["render"]
        self.page_size: int = render["page_size"]
        self.token_size: int = render["token_size"]
        self.tokens_per_page = tokens_per_page(self.page_size, self.token_size)
        self._shards = shards_of(manifest, "pages")
        self._group: tuple[int, list[Page]] = (-1, [])
        self._read_index()

    def __reduce__(self) -> tuple[Any, ...]:
        return (MemoryDataset, (self.path, self.manifest))

    @classmethod
    def open(cls, path: Path | str) -> MemoryDataset:
        """Open the dataset in a directory; its samples and pages are not read yet.

        Raises:
            MissingInputError: no manifest, or a shard it names is not there.
                or another ocrmem's.
        DataError: a shard that is not as the manifest says.
        """
        return cls(Path(path), read_manifest(Path(path)))

    def samples(self, split: Split) -> StoredSamples:
        """Return the samples of a split, in the order of the data; empty when the split has none."""
        if split not in SPLITS:
            raise DataError.of("split", f"{split!r} is not a split", f"Use one of {', '.join(SPLITS)}")
        return StoredSamples(self.path, shards_of(self.manifest, f"samples/{split}"))

    def page_hashes(self) -> HashIndex:
        """Return the hashes of all pages, in stored order."""
        return self._names

    def page(self, name: str) -> Page:
        """Return the page with this hash.

        Raises:
            DataError: the dataset has no such page.
        """
        row = self._row(name)
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if self._group[0] != group:
            file, number = self._groups[group]
            with reading(self.path / self._shards[file]["path"]):
                self._group = (group, _read_group(self._open_pages(file), number))
        return self._group[1][row - int(self._starts[group])]

    def kept(self, name: str) -> np.ndarray:
        """Return which vision tokens of a page enter a sequence.

        Returns:
            bool [tokens_per_page], row-major: those with ink, or all when the dataset was made with
            ``drop_blank_tokens: false``.

        Raises:
            DataError: the dataset has no such page.
        """
        row = self._row(name)
        if not self._drops_blank:
            return np.ones(self.tokens_per_page, bool)
        return np.unpackbits(self._masks[row], count=self.tokens_per_page).view(bool)

    def kept_counts(self) -> np.ndarray:
        """Return int32 [pages]: how many vision tokens of each page enter a sequence, in stored order."""
        if not self._drops_blank:
            return np.full(len(self._names), self.tokens_per_page, np.int32)
        return np.bitwise_count(self._masks).sum(axis=1, dtype=np.int32)

    def _read_index(self) -> None:
        """Read names and masks of all pages, and where row groups begin."""
        self._drops_blank: bool = self.manifest["config"]["model"]["drop_blank_tokens"]
        self._groups: list[tuple[int, int]] = []  # file and number, of every row group
        width = (self.tokens_per_page + 7) // 8
        starts, digests, masks = [0], [], []
        for number, shard in enumerate(self._shards):
            file = self._open_pages(number)
            for group in range(file.num_row_groups):
                with reading(self.path / shard["path"]):
                    table = file.read_row_group(group, columns=["hash", "ink_mask"])
                packed = b"".join(table.column("ink_mask").to_pylist())
                if len(packed) != width * len(table):
                    raise changed(self.path / shard["path"], f"has ink masks that are not of {width} bytes")
                digests.append(digests_of(table.column("hash").to_pylist()))
                masks.append(np.frombuffer(packed, np.uint8).reshape(-1, width))
                self._groups.append((number, group))
                starts.append(starts[-1] + len(table))
        self._starts = np.array(starts)
        self._names = HashIndex(np.concatenate(digests) if digests else np.empty((0, 32), np.uint8))
        self._masks = np.concatenate(masks) if masks else np.empty((0, width), np.uint8)

    def _row(self, name: str) -> int:
        row = self._names.find(name)
        if row is None:
            raise self._unknown(name)
        return row

    def _open_pages(self, number: int) -> pq.ParquetFile:
        shard = self._shards[number]
        return open_shard(self.path, shard, pages_schema())

    def _unknown(self, name: str) -> OcrMemError:
        remedy = "Use samples and pages of the same dataset, or run `ocrmem render` again"
        return DataError.of(str(self.path), f"has no page {name}", remedy)


def _read_group(file: pq.ParquetFile, group: int) -> list[Page]:
    table = file.read_row_group(group, columns=["size", "atlas_version", "bits"])
    return [Page.from_bytes(unbanded(row["bits"]), row["size"], row["atlas_version"]) for row in table.to_pylist()]
