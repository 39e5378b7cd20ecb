"""Opening a parquet shard, and saying what is wrong with one that is not as the manifest says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocrmem.errors import DataError, OcrMemError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


def open_shard(path: Path, shard: dict[str, Any], schema: pa.Schema, repeated: Sequence[str] = ()) -> pq.ParquetFile:
    """A shard, if it is parquet with the expected columns and number of rows.

    Args:
        shard: the manifest's line.
        schema: the columns it must have.
        repeated: columns to be read as dictionaries.

    Raises:
        DataError: it is not.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, read_dictionary=list(repeated))
    except (pa.ArrowInvalid, OSError) as error:
        raise changed(path, f"cannot be read as parquet ({error})") from None
    if file.schema_arrow.names != schema.names:
        raise changed(path, f"has the columns {', '.join(file.schema_arrow.names)}")
    if file.metadata.num_rows != shard["rows"]:
        raise changed(path, f"has {file.metadata.num_rows} rows, the manifest says {shard['rows']}")
    return file


def changed(path: Path, message: str) -> OcrMemError:
    """A file of the dataset is not as `render` left it."""
    return DataError.of(str(path), message, "Run `ocrmem render` again")
