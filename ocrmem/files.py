"""Atomic files and directories, and their hashes.

Every output is written beside its place under a temporary name and then renamed: a kill at any moment leaves the old
one or the new one. The temporary name is fixed, so that the next run overwrites what a killed one leaves.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ocrmem.errors import ConfigError, MissingInputError


@contextmanager
def replacing_file(path: Path) -> Iterator[BinaryIO]:
    """Give a new file that takes the place of ``path`` if the block succeeds, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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


def read_json(path: Path, *, made_by: str) -> Any:
    """Read a JSON file that the verb ``made_by`` writes.

    Raises:
        MissingInputError: the file is not there, cannot be read or is not JSON; names the verb to run.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingInputError.of(str(path), "is not there", f"Run `ocrmem {made_by}` first") from None
    except OSError as error:
        raise MissingInputError.of(
            str(path),
            f"cannot be read ({error.strerror})",
            f"Make it readable, or delete it and run `ocrmem {made_by}` again",
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        remedy = f"Delete it and run `ocrmem {made_by}` again"
        raise MissingInputError.of(str(path), f"is not valid JSON ({error})", remedy) from None


@contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Give an empty directory that takes the place of ``path`` if the block succeeds.

    The old directory is moved aside before the new one is moved in, and then deleted, so no moment shows a mixture.

    Raises:
        ConfigError: ``path`` is a mount point, which cannot be moved.
    """
    if path.is_mount():
        raise ConfigError.of(str(path), "is a mount point, which cannot be replaced", "Name a folder below it")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    old = path.with_name(f".{path.name}.old")
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if path.exists():
        path.rename(old)
    temporary.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Return the hex sha256 of ``value`` as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def sha256_tree(path: Path) -> str:
    """Return the hex sha256 of a file, or of a directory's relative names and file hashes in sorted order."""
    if path.is_file():
        return sha256_file(path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return sha256_json([[p.relative_to(path).as_posix(), sha256_file(p)] for p in files])
