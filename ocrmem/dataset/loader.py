"""Reading what `render` wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocrmem.conversations import Split
from ocrmem.dataset.manifest import read_manifest, shards_of
from ocrmem.dataset.schema import SPLITS, Sample, pages_schema, read_samples, samples_schema
from ocrmem.errors import DataError, OcrMemError
from ocrmem.files import sha256_file
from ocrmem.render import Page

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


class MemoryDataset:
    """Samples and pages on disk. Pages are read when they are asked for, a row group at a time.

    Attributes:
        path: the directory.
        manifest: what manifest.json says.
        page_size: px of a page's side.
        token_size: px of one vision token's patch.
        tokens_per_page: vision tokens of a page, blank ones included.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        render = manifest["config"]["render"]
        self.page_size: int = render["page_size"]
        self.token_size: int = render["token_size"]
        self.tokens_per_page = (self.page_size // self.token_size) ** 2
        self._shards = shards_of(manifest, "pages")
        self._places: dict[str, tuple[int, int, int]] = {}
        self._masks: dict[str, bytes] = {}
        self._group: tuple[tuple[int, int] | None, list[Page]] = (None, [])
        self._index_pages()

    @classmethod
    def open(cls, path: Path | str) -> MemoryDataset:
        """Open the dataset in a directory; its samples and pages are not read yet.

        Raises:
            MissingInputError: no manifest, or a shard it names is not there.
            DataError: another schema version, or a shard that is not as the manifest says.
        """
        return cls(Path(path), read_manifest(Path(path)))

    def verify(self) -> None:
        """Compare every shard with the manifest's hash.

        Raises:
            DataError: naming each shard that has changed.
        """
        for shard in self.manifest["shards"]:
            if sha256_file(self.path / shard["path"]) != shard["sha256"]:
                raise _changed(self.path / shard["path"], "does not have the manifest's sha256")

    def samples(self, split: Split) -> list[Sample]:
        """The samples of a split, in the order of the data; empty when the split has none."""
        if split not in SPLITS:
            raise DataError.of("split", f"{split!r} is not a split", f"Use one of {', '.join(SPLITS)}")
        samples: list[Sample] = []
        for shard in shards_of(self.manifest, f"samples/{split}"):
            samples += read_samples(_open(self.path / shard["path"], shard, samples_schema()).read())
        return samples

    def page_hashes(self) -> list[str]:
        """Hashes of all pages, in stored order."""
        return list(self._places)

    def page(self, name: str) -> Page:
        """The page with this hash.

        Raises:
            DataError: the dataset has no such page.
        """
        place = self._places.get(name)
        if place is None:
            raise self._unknown(name)
        file, group, row = place
        if self._group[0] != (file, group):
            self._group = ((file, group), _read_group(self._open_pages(file), group))
        return self._group[1][row]

    def kept(self, name: str) -> np.ndarray:
        """Which vision tokens of a page enter a sequence.

        Returns:
            bool [tokens_per_page], row-major: those with ink, or all when the dataset was made with
            ``drop_blank_tokens: false``.

        Raises:
            DataError: the dataset has no such page.
        """
        mask = self._masks.get(name)
        if mask is None:
            raise self._unknown(name)
        if not self.manifest["config"]["model"]["drop_blank_tokens"]:
            return np.ones(self.tokens_per_page, bool)
        packed = np.frombuffer(mask, np.uint8)
        return np.unpackbits(packed, count=self.tokens_per_page).astype(bool)

    def iter_pages(self, batch: int, start: int = 0) -> Iterator[list[Page]]:
        """All pages in stored order.

        Args:
            batch: pages at a time; the last list may be shorter.
            start: pages to leave out at the beginning (to go on where an earlier run stopped).
        """
        pending: list[Page] = []
        skip = start
        for number in range(len(self._shards)):
            file = self._open_pages(number)
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if skip >= rows:
                    skip -= rows
                    continue
                pending += _read_group(file, group)[skip:]
                skip = 0
                while len(pending) >= batch:
                    yield pending[:batch]
                    pending = pending[batch:]
        if pending:
            yield pending

    def _index_pages(self) -> None:
        for number in range(len(self._shards)):
            file = self._open_pages(number)
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=["hash", "ink_mask"])
                names, masks = table.column("hash").to_pylist(), table.column("ink_mask").to_pylist()
                for row, (name, mask) in enumerate(zip(names, masks, strict=True)):
                    self._places[name] = (number, group, row)
                    self._masks[name] = mask

    def _open_pages(self, number: int) -> pq.ParquetFile:
        shard = self._shards[number]
        return _open(self.path / shard["path"], shard, pages_schema())

    def _unknown(self, name: str) -> OcrMemError:
        remedy = "Use samples and pages of the same dataset, or run `ocrmem render` again"
        return DataError.of(str(self.path), f"has no page {name}", remedy)


def _open(path: Path, shard: dict[str, Any], schema: pa.Schema) -> pq.ParquetFile:
    """A shard, if it is parquet with the expected columns and number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _changed(path, f"cannot be read as parquet ({error})") from None
    if file.schema_arrow.names != schema.names:
        raise _changed(path, f"has the columns {', '.join(file.schema_arrow.names)}")
    if file.metadata.num_rows != shard["rows"]:
        raise _changed(path, f"has {file.metadata.num_rows} rows, the manifest says {shard['rows']}")
    return file


def _read_group(file: pq.ParquetFile, group: int) -> list[Page]:
    table = file.read_row_group(group, columns=["size", "atlas_version", "bits"])
    return [Page.from_bytes(row["bits"], row["size"], row["atlas_version"]) for row in table.to_pylist()]


def _changed(path: Path, message: str) -> OcrMemError:
    return DataError.of(str(path), message, "Run `ocrmem render` again")
