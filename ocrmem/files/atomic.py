"""Files and directories that are whole or not there.

Every output is written beside its place under a temporary name and then renamed: a kill at any moment leaves the old
one or the new one. The temporary name is one that no living process uses, so that two writers do not meet in it, and
the next run overwrites what a killed one leaves.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ocrmem.errors import ConfigError
from ocrmem.files.faults import naming
from ocrmem.files.locks import LOCK_IN_VOLUME, locked, take

# renameat2(2) of Linux, which Python does not have.
_HERE = -100  # AT_FDCWD: paths are as for rename
_EXCHANGE = 2
_CANNOT_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


# What a killed process leaves within a folder: a file half written, or the lock of a mounted volume.
_LEFTOVER = re.compile(rf"\..+\.\d+\.tmp|{re.escape(LOCK_IN_VOLUME)}")


@contextmanager
def replacing_file(path: Path) -> Iterator[BinaryIO]:
    """Give a new file that takes the place of ``path`` if the block succeeds, making its folder.

    A link at ``path`` is replaced, and what it points to stays as it is: it may be an object of DVC's cache.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, descriptor = _temporary_beside(path)
    with naming(path), open(descriptor, "wb") as handle:
        try:
            yield handle
            handle.flush()
            os.fsync(descriptor)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _temporary_beside(path: Path) -> tuple[Path, int]:
    """Take the first temporary name that no other process has, and empty what a killed one left under it."""
    number = 0
    while (descriptor := take(temporary := path.with_name(f".{path.name}.{number}.tmp"))) is None:
        number += 1
    os.truncate(descriptor, 0)
    return temporary, descriptor


def is_leftover(name: str) -> bool:
    """Return whether a file of this name is none of a person's, but of a writer that was killed."""
    return _LEFTOVER.fullmatch(name) is not None


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically, making its folder."""
    with replacing_file(path) as handle:
        handle.write(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically. Lone surrogates are an error: text on disk is always valid UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with a final newline, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


@contextmanager
def replacing_directory(path: Path, verb: str = "") -> Iterator[Path]:
    """Give an empty directory that takes the place of ``path`` if the block succeeds, and be its only writer.

    A link to a directory stays: what it points to is replaced. The old directory and the new one change places in
    one step where the system can do that. Elsewhere a kill between two renames leaves the old one aside, and the next
    run puts it back first.

    Args:
        verb: who writes, see `locked`.

    Raises:
        BusyError: another process writes to it.
        ConfigError: see `check_replaceable`.
    """
    check_replaceable(path)
    real = Path(os.path.realpath(path))
    temporary = real.with_name(f".{real.name}.new")
    old = real.with_name(f".{real.name}.old")
    with locked(path, verb):
        _settle(real, temporary, old)
        temporary.mkdir()
        try:
            yield temporary
            if not real.exists():
                temporary.rename(real)
            elif not _exchange(temporary, real):
                real.rename(old)
                temporary.rename(real)
        finally:
            _settle(real, temporary, old)


def _settle(real: Path, temporary: Path, old: Path) -> None:
    """Put back the old directory where a stop between two renames left none, and delete what is left over."""
    if old.exists() and not real.exists():
        old.rename(real)
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)


def check_replaceable(path: Path) -> None:
    """Ask before the work whether `replacing_directory` can replace ``path``.

    Raises:
        ConfigError: it is a mount point, which cannot be moved, or a file.
    """
    if path.is_mount():
        raise ConfigError.of(str(path), "is a mount point, which cannot be replaced", "Name a folder below it")
    if path.exists() and not path.is_dir():
        raise ConfigError.of(str(path), "is a file, not a directory", "Name another directory, or move the file away")


def _exchange(one: Path, other: Path) -> bool:
    """Let two directories change names in one step; return False where the system or file system cannot."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    sys.audit("os.rename", one, other, -1, -1)
    if function(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))
