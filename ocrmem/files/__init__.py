"""Outputs on disk: whole or absent, one writer each, and their hashes."""

from ocrmem.files.atomic import (
    check_replaceable,
    is_leftover,
    replacing_directory,
    replacing_file,
    write_bytes,
    write_json,
    write_text,
)
from ocrmem.files.faults import disk_errors, naming
from ocrmem.files.hashing import sha256_code, sha256_file, sha256_json, sha256_tree
from ocrmem.files.locks import locked, locking
from ocrmem.files.verified import Identity, hashing_threads, identity_of, sha256_of_all, sha256_once

__all__ = [
    "Identity",
    "check_replaceable",
    "disk_errors",
    "hashing_threads",
    "identity_of",
    "is_leftover",
    "locked",
    "locking",
    "naming",
    "replacing_directory",
    "replacing_file",
    "sha256_code",
    "sha256_file",
    "sha256_json",
    "sha256_of_all",
    "sha256_once",
    "sha256_tree",
    "write_bytes",
    "write_json",
    "write_text",
]
