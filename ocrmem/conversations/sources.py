"""The data files to read, the split that a file's name means, and files that are not JSONL at all."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from ocrmem.conversations.types import SPLITS, Split
from ocrmem.errors import Problem

_SIGNATURES = {
    b"\xff\xfe": ("is UTF-16, not UTF-8", ""),
    b"\xfe\xff": ("is UTF-16, not UTF-8", ""),
    b"\x1f\x8b": ("is compressed with gzip", ""),
    b"\x28\xb5\x2f\xfd": ("is compressed with zstd", "Unpack it: unzstd FILE"),
    b"PK\x03\x04": ("is a zip archive", "Unpack it: unzip FILE"),
    b"PAR1": ("is a parquet file", ""),
}
_NAMED_FILES = 5
_CONVERTIBLE = {".json", ".gz", ".parquet", ".ndjson", ".jsonlines"}  # names of files that `convert` probably reads


def data_files(path: Path) -> tuple[list[Path], Problem | None]:
    """Return the files to read, by name, or why there are none.

    Args:
        path: a file of any name, or a directory, whose ``*.jsonl`` are read (not hidden ones, nor its folders').
    """
    found, deeper, name = [path], None, shown_path(path)
    try:
        if path.is_dir():
            found = sorted(p for p in path.glob("*.jsonl") if p.is_file() and not p.name.startswith("."))
            deeper = None if found else next((p.parent for p in sorted(path.glob("*/*.jsonl"))), None)
    except OSError as error:
        return [], Problem(name, f"cannot be listed ({error.strerror})", "Check its permissions")
    if not path.exists():
        return [], Problem(name, "is not there", "Set data.path to a .jsonl file or a directory of them")
    if not path.is_file() and not path.is_dir():
        return [], Problem(name, "is neither a file nor a directory", "Set data.path to one")
    if found:
        return found, None
    hint = f"; {shown_path(deeper)} has some, set data.path to it" if deeper else ""
    others = f" but {told_names(beside)}" if (beside := other_files(path)) else ""
    remedy = f"Put conversations there, one JSON object a line{hint}"
    if convertible := [file for file in beside if file.suffix in _CONVERTIBLE]:
        remedy = conversion(convertible)
    return [], Problem(name, f"holds no .jsonl file{others}", remedy)


def conversion(files: Sequence[Path | str], output: str = "converted", options: str = "") -> str:
    """Return the remedy that is a command of `ocrmem convert`, the same for all who name it."""
    named = [str(file) for file in files]
    if len(named) > _NAMED_FILES:
        folders = sorted({(str(Path(file).parent), Path(file).suffix) for file in named})
        places = " ".join(f"{shlex.quote(folder)}/*{suffix}" for folder, suffix in folders)
    else:
        places = " ".join(map(shlex.quote, named))
    return f"Run `ocrmem convert {places} --output {output}{options}` and set data.path to {output}"


def other_files(path: Path) -> list[Path]:
    """Return the files of a directory that are not read, by name; hidden ones aside."""
    if not path.is_dir():
        return []
    return sorted(p for p in path.iterdir() if p.is_file() and p.suffix != ".jsonl" and not p.name.startswith("."))


def told_names(files: list[Path]) -> str:
    """Return the names of files for a person, the first five of them."""
    more = f" and {len(files) - _NAMED_FILES} more" if len(files) > _NAMED_FILES else ""
    return ", ".join(shown_path(Path(file.name)) for file in files[:_NAMED_FILES]) + more


def shown_path(path: Path) -> str:
    """Return a path as messages show it: names that are not UTF-8 with their bytes escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def name_split(file: Path) -> Split:
    """Return the split of a file by its name: ``eval*`` and ``counterfactual*`` are held out, others are trained on."""
    return next((split for split in SPLITS if file.name.startswith(split)), "train")


def split_of(file: Path, conversation_id: str, fraction: float) -> Split:
    """Return the split of a conversation: its file's, or ``eval`` if it is held out of a training file."""
    split = name_split(file)
    return "eval" if split == "train" and held_out(conversation_id, fraction) else split


def held_out(conversation_id: str, fraction: float) -> bool:
    """Return whether the sha256 of its id holds a conversation out: the same on every machine, with any other data."""
    digest = hashlib.sha256(conversation_id.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def whole_file_fault(file: Path) -> Problem | None:
    """Return a fault of the file that would make each of its lines a problem, or None.

    Raises:
        OSError: the file cannot be read.
    """
    name = shown_path(file)
    with file.open("rb") as handle:
        opening = handle.read(1 << 16)
    for signature, (message, remedy) in _SIGNATURES.items():
        if opening.startswith(signature):
            return Problem(f"{name}:1", message, remedy.replace("FILE", name) or conversion([name]))
    first = opening.partition(b"\n")[0].strip()
    if first == b"[" or (re.match(rb"\[\s*{", first) and not _is_json(first)):
        return Problem(f"{name}:1", "is one JSON list, not one object a line", conversion([name]))
    if first == b"{":
        return Problem(f"{name}:1", "is JSON spread over lines, not one object a line", conversion([name]))
    return None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False  # a list of objects continues in the next line, or past what was read
    return True  # a whole list is that line's own problem
