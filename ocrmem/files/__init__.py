"""Outputs on disk: whole or absent, one writer each, and their hashes."""

from ocrmem.files.atomic import (
    check_replaceable,
    is_leftover,
    read_json,
    replacing_directory,
    replacing_file,
    write_bytes,
    write_json,
    write_text,
)
from ocrmem.files.hashing import sha256_file, sha256_json, sha256_tree
from ocrmem.files.locks import locked, locking

__all__ = [
    "check_replaceable",
    "is_leftover",
    "locked",
    "locking",
    "read_json",
    "replacing_directory",
    "replacing_file",
    "sha256_file",
    "sha256_json",
    "sha256_tree",
    "write_bytes",
    "write_json",
    "write_text",
]
