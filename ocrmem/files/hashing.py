"""sha256 of files, trees and plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent.parent


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
    return _sha256_named(path, path.rglob("*"))


def sha256_code(*parts: str) -> str:
    """Return the hex sha256 of ocrmem itself: modules, glyphs, phrases and templates, but not what Python compiles.

    Args:
        parts: folders and files of the package that count; none: all of it.
    """
    found = [_PACKAGE / part for part in parts] or [_PACKAGE]
    files = (path for part in found for path in ([part] if part.is_file() else part.rglob("*")))
    return _sha256_named(_PACKAGE, (path for path in files if path.suffix != ".pyc"))


def _sha256_named(root: Path, paths: Iterable[Path]) -> str:
    files = sorted(path for path in paths if path.is_file())
    return sha256_json([[path.relative_to(root).as_posix(), sha256_file(path)] for path in files])
