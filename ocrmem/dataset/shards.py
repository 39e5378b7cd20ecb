"""Parquet shards: written as a stream, with the same bytes every time, and opened with their faults named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import compress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from ocrmem.dataset.hash_index import digests_of
from ocrmem.dataset.schema import (
    PAGE_ROWS,
    SAMPLE_ROWS,
    PageRow,
    Sample,
    pages_schema,
    pages_table,
    samples_schema,
    samples_table,
    unbanded,
)
from ocrmem.errors import DataError, OcrMemError, first_line
from ocrmem.files import naming, sha256_file, sha256_of_all, sha256_once
from ocrmem.json_files import Shard

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Row = TypeVar("Row")
_MESSAGES_A_GROUP = 50_000
_DICTIONARY_BYTES = 64 << 20


class ShardWriter(Generic[Row]):
    """Writes rows to a parquet file, a row group at a time; the file takes its name when the block ends well.

    A file without rows is not written.

    Args:
        path: the file.
        schema: Arrow schema of the rows.
        table: makes an Arrow table of rows.
        group_rows: most rows of a row group.
        options: for `pyarrow.parquet.ParquetWriter`.
        weight: what a row adds to a row group's weight; a group also ends at `_MESSAGES_A_GROUP`.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        table: Callable[[list[Row]], pa.Table],
        group_rows: int,
        options: dict[str, Any],
        weight: Callable[[Row], int] = lambda row: 0,
    ) -> None:
        self.path = path
        self.rows = 0
        self._schema = schema
        self._table = table
        self._group_rows = group_rows
        self._options = options
        self._weight = weight
        self._pending: list[Row] = []
        self._pending_weight = 0
        self._writer: Any = None
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")

    def __enter__(self) -> ShardWriter[Row]:
        return self

    def add(self, row: Row) -> None:
        """Take one more row."""
        self._pending.append(row)
        self._pending_weight += self._weight(row)
        self.rows += 1
        if len(self._pending) >= self._group_rows or self._pending_weight >= _MESSAGES_A_GROUP:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
            if self._writer is not None:
                with naming(self.path):
                    self._writer.close()
            if kind is None and self._writer is not None:
                _sync(self._temporary)
                self._temporary.replace(self.path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._pending:
            return
        import pyarrow.parquet as pq

        with naming(self.path):
            if self._writer is None:
                self._writer = pq.ParquetWriter(
                    self._temporary, self._schema, compression="zstd", compression_level=3, **self._options
                )
            self._writer.write_table(self._table(self._pending), row_group_size=len(self._pending))
        self._pending = []
        self._pending_weight = 0


def sample_writer(path: Path) -> ShardWriter[Sample]:
    """Return a writer of samples. A message that many samples repeat is stored once a row group (its dictionary)."""
    return ShardWriter(
        path,
        samples_schema(),
        samples_table,
        SAMPLE_ROWS,
        # Nobody filters samples: statistics would only make the footer longer, three times.
        {"dictionary_pagesize_limit": _DICTIONARY_BYTES, "write_statistics": False},
        weight=lambda sample: len(sample.history) + len(sample.prompt),
    )


def page_writer(path: Path) -> ShardWriter[PageRow]:
    """Return a writer of pages."""
    # Statistics would put whole pages into the file's footer, and no two pages are alike.
    options = {"use_dictionary": False, "write_statistics": False}
    return ShardWriter(path, pages_schema(), pages_table, PAGE_ROWS, options)


def open_shard(root: Path, shard: Shard, schema: pa.Schema, repeated: Sequence[str] = ()) -> pq.ParquetFile:
    """Open a shard, if it has the manifest's bytes and the expected columns and number of rows.

    Args:
        root: the dataset's directory.
        shard: the manifest's line.
        schema: the columns it must have.
        repeated: columns to be read as dictionaries.

    Raises:
        DataError: it is not.
    """
    import pyarrow.parquet as pq

    verify_shards(root, [shard])
    path = root / shard["path"]
    with reading(path):
        file = pq.ParquetFile(path, read_dictionary=list(repeated))
        columns = file.metadata.schema.to_arrow_schema()
    if not columns.equals(schema):
        raise changed(path, f"has the columns {', '.join(f'{one.name} ({one.type})' for one in columns)}")
    if file.metadata.num_rows != shard["rows"]:
        raise changed(path, f"has {file.metadata.num_rows} rows, the manifest says {shard['rows']}")
    return file


def verify_shards(root: Path, shards: Sequence[Shard]) -> None:
    """Compare shards with the manifest's hashes; those that this process has compared are not read again.

    Args:
        root: the dataset's directory.

    Raises:
        DataError: naming each shard that has other bytes.
    """
    paths = [root / shard["path"] for shard in shards]
    with reading(root):
        found = sha256_of_all(paths) if len(paths) > 1 else [sha256_once(path) for path in paths]
    problems = [
        problem
        for path, shard, digest in zip(paths, shards, found, strict=True)
        if digest != shard["sha256"]
        for problem in changed(path, "was changed or damaged: it has not the sha256 of the manifest").problems
    ]
    if problems:
        raise DataError(problems)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what Arrow and the system say of a file that cannot be read into an error that names it."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise changed(path, f"cannot be read ({first_line(error)})") from None


def changed(path: Path, message: str) -> OcrMemError:
    """Return the error for a file of the dataset that is not as `render` left it."""
    return DataError.of(str(path), message, "Run `ocrmem render` again")


def describe(path: Path, root: Path, rows: int) -> Shard:
    """Return a shard's entry in the manifest: path within ``root``, rows, bytes, sha256."""
    return {
        "path": path.relative_to(root).as_posix(),
        "rows": rows,
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
    }


def read_pages(path: Path) -> Iterator[PageRow]:
    """Yield the pages of a shard, a row group in memory at a time."""
    import pyarrow.parquet as pq

    with reading(path), pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            for row in file.read_row_group(group).to_pylist():
                yield PageRow(**row | {"bits": unbanded(row["bits"])})


def page_digests(path: Path) -> np.ndarray:
    """Return uint8 [rows, 32]: the hashes of a shard's pages."""
    import pyarrow.parquet as pq

    with reading(path):
        names = pq.read_table(path, columns=["hash"]).column("hash").to_pylist()
    return digests_of(names)


def copy_pages(source: Path, target: Path, wanted: np.ndarray) -> int:
    """Write some pages of a shard to another.

    Args:
        wanted: bool [rows]; which of them.

    Returns:
        Pages written; with 0 there is no ``target``.
    """
    if wanted.all():
        place_copy(source, target)
    elif wanted.any():
        with page_writer(target) as writer:
            for page in compress(read_pages(source), wanted.tolist()):
                writer.add(page)
    return int(wanted.sum())


def place_copy(source: Path, target: Path) -> None:
    """Put the file there under a second name, or a copy where the file system has no hard links."""
    with suppress(OSError):
        os.link(source, target)
        return
    shutil.copyfile(source, target)
    _sync(target)


@contextmanager
def _open_to_sync(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    with _open_to_sync(path) as handle:
        os.fsync(handle)
