"""Bring conversations to where a task can read them: from S3, or the first of each file only."""

from __future__ import annotations

import itertools
from pathlib import Path

from ocrmem.conversations.sources import data_files
from ocrmem.errors import DataError
from ocrmem.storage import is_s3, store_at


def bring_data(place: str, directory: Path) -> Path:
    """Return the conversations as a local path.

    Args:
        place: a path, which is given back as it is, or ``s3://bucket/prefix``, whose objects are copied. Keys, and
            ``AWS_ENDPOINT_URL`` of a store that is not Amazon's, come from the environment.
        directory: where copies go.

    Raises:
        ConfigError: the store cannot be read, or holds nothing there.
    """
    if not is_s3(place):
        return Path(place)
    directory.mkdir(parents=True, exist_ok=True)
    store_at(place, None, "data").download(directory)
    return directory


def first_conversations(source: Path, directory: Path, count: int) -> Path:
    """Copy the first ``count`` lines of each file of conversations: a slice that a smoke test can afford.

    Raises:
        DataError: there is no file of conversations.
    """
    files, problem = data_files(source)
    if problem is not None:
        raise DataError(problem)
    directory.mkdir(parents=True, exist_ok=True)
    for file in files:
        with file.open("rb") as lines, (directory / file.name).open("wb") as target:
            target.writelines(itertools.islice(lines, count))
    return directory
