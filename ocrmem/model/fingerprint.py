"""Whose weights a directory or a cached hub snapshot holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from ocrmem.errors import ModelError

_SAMPLED = 64 * 1024  # bytes of each tensor that go into a fingerprint


def fingerprint(location: str, revision: str | None = None) -> str | None:
    """Identify the weights of a directory or a cached hub snapshot, whatever its name and its shards.

    It is the sha256 over every tensor's name, dtype, shape and first 64 KiB in the safetensors files: seconds also
    for a model of many gigabytes, and different for two fine-tunes of one model.

    Returns:
        64 hex digits; None when there are no safetensors files to read (a hub name that is not in the cache).
    """
    directory = _directory(location, revision)
    files = sorted(directory.glob("*.safetensors")) if directory else []
    if not files:
        return None
    tensors = sorted((name, file, spec) for file in files for name, spec in _header(file).items())
    digest = hashlib.sha256()
    for name, file, (dtype, shape, offset, size) in tensors:
        digest.update(json.dumps([name, dtype, shape, size]).encode())
        with file.open("rb") as handle:
            handle.seek(offset)
            digest.update(handle.read(min(size, _SAMPLED)))
    return digest.hexdigest()


def _directory(location: str, revision: str | None) -> Path | None:
    if Path(location).is_dir():
        return Path(location)
    try:
        found = cached_file(location, "config.json", revision=revision, local_files_only=True)
    except (OSError, ValueError):
        return None
    return Path(found).parent if found else None


def _header(file: Path) -> dict[str, tuple[str, list[int], int, int]]:
    """Name -> (dtype, shape, offset in the file, bytes); format: https://github.com/huggingface/safetensors#format."""
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        text = handle.read(length) if length <= file.stat().st_size else b""
    try:
        entries: dict[str, Any] = json.loads(text)
    except ValueError:
        raise ModelError.of(str(file), "is not a whole safetensors file", "Make or download it again") from None
    entries.pop("__metadata__", None)
    tensors = {}
    for name, entry in entries.items():
        first, last = entry["data_offsets"]
        tensors[name] = (entry["dtype"], entry["shape"], 8 + length + first, last - first)
    return tensors
