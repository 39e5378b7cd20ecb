"""Hashes of files that are compared before the files are read: computed once a process."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ocrmem.environment import available_cores
from ocrmem.files.hashing import sha256_file

# A file that changes twice within its file system's resolution keeps its time, so a young file is hashed every time.
_YOUNG_SECONDS = 2.0
Identity = tuple[int, int, int, int]
_known: dict[Identity, str] = {}


def sha256_once(path: Path) -> str:
    """Return the hex sha256 of a file's bytes, computed again only if the file's size or time has changed."""
    identity = identity_of(path)
    digest = _known.get(identity) if identity else None
    if digest is None:
        digest = sha256_file(path)
        if identity:
            _known[identity] = digest
    return digest


def identity_of(path: Path) -> Identity | None:
    """Return what changes when the file does; None for one so young that it may change and keep its time."""
    stat = path.stat()
    young = time.time() - stat.st_mtime <= _YOUNG_SECONDS
    return None if young else (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def sha256_of_all(paths: Iterable[Path]) -> list[str]:
    """Return `sha256_once` of several files, which are read at the same time."""
    with ThreadPoolExecutor(hashing_threads()) as pool:
        return list(pool.map(sha256_once, paths))


def hashing_threads() -> int:
    """Return how many threads hash at once: hashing leaves Python's lock, and eight readers are enough for a disk."""
    return min(8, available_cores())
