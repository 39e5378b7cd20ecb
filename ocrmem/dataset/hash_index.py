"""An index of page names by the million: sha256 in hex outside, 32 bytes each in here.

A Python set or dict of such names takes 150 to 250 bytes a page; a table takes 44.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import numpy as np

from ocrmem.errors import DataError

DIGEST = 32  # bytes of a sha256
_AT_A_TIME = 4096


class HashIndex(Sequence[str]):
    """Names in their order, and where each one stands.

    Args:
        digests: uint8 [n, 32].
    """

    def __init__(self, digests: np.ndarray) -> None:
        self.digests = digests
        keys = _words(digests)[:, 0] if len(digests) else np.empty(0, np.uint64)
        self._order = np.argsort(keys, kind="stable").astype(np.int32 if len(keys) < 2**31 else np.int64)
        self._keys = keys[self._order]

    @classmethod
    def of(cls, names: Iterable[str]) -> HashIndex:
        """Index names given as hex."""
        return cls(digests_of(names))

    def __len__(self) -> int:
        return len(self.digests)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [digest.tobytes().hex() for digest in self.digests[index]]
        return self.digests[index].tobytes().hex()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _AT_A_TIME):
            yield from self[start : start + _AT_A_TIME]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) is not None

    def find(self, name: str) -> int | None:
        """Return where the name stands first; None when it is absent."""
        try:
            digest = bytes.fromhex(name)
        except ValueError:
            return None
        if len(digest) != DIGEST:
            return None
        key = np.uint64(int.from_bytes(digest[:8]))
        for place in range(int(np.searchsorted(self._keys, key)), len(self)):
            if self._keys[place] != key:
                return None
            row = int(self._order[place])
            if self.digests[row].tobytes() == digest:
                return row
        return None

    def places(self, other: HashIndex) -> np.ndarray:
        """Return the place of each name of another table in this one: int64 [len(other)], -1 where it has none."""
        if not len(self) or not len(other):
            return np.full(len(other), -1, np.int64)
        wanted = _words(other.digests)[:, 0]
        near = np.minimum(np.searchsorted(self._keys, wanted), len(self) - 1)
        rows = self._order[near].astype(np.int64)
        same = (self.digests[rows] == other.digests).all(axis=1)
        # Two different names that begin with the same 8 bytes: the one of the two that is looked for.
        for row in np.flatnonzero(~same & (self._keys[near] == wanted)):
            found = self.find(other[int(row)])
            rows[row], same[row] = (-1, False) if found is None else (found, True)
        rows[~same] = -1
        return rows

    def sha256(self) -> str:
        """Return what `ocrmem.files.sha256_json` gives for the list of the names, without making that list."""
        digest = hashlib.sha256(b"[")
        for start in range(0, len(self), _AT_A_TIME):
            part = json.dumps(self[start : start + _AT_A_TIME], separators=(",", ":"))[1:-1]
            digest.update(("," * (start > 0) + part).encode("ascii"))
        digest.update(b"]")
        return digest.hexdigest()


def digests_of(names: Iterable[str]) -> np.ndarray:
    """Return names in hex as uint8 [n, 32].

    Raises:
        DataError: a name is not the hex of a sha256.
    """
    parts = []
    waiting = iter(names)
    while some := list(islice(waiting, _AT_A_TIME)):
        try:
            parts.append(bytes.fromhex("".join(some)))
            bad = next((name for name in some if len(name) != 2 * DIGEST), None)
        except ValueError:
            bad = next(name for name in some if not _is_name(name))
        if bad is not None:
            raise DataError.of(f"page {bad}", "is not the name of a page: not a sha256", "Run `ocrmem render` again")
    return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, DIGEST)


def first_seen(digests: np.ndarray) -> np.ndarray:
    """Return bool [n]: a digest is the first of its value.

    Args:
        digests: uint8 [n, 8 * w].
    """
    first = np.ones(len(digests), bool)
    order, starts = _groups(digests)
    first[order] = starts
    return first


def occurrences(digests: np.ndarray) -> np.ndarray:
    """Return how often each digest is there, int32 [n].

    Args:
        digests: uint8 [n, 8 * w].
    """
    order, starts = _groups(digests)
    counts = np.empty(len(digests), np.int32)
    sizes = np.diff(np.append(np.flatnonzero(starts), len(digests)))
    counts[order] = np.repeat(sizes, sizes)
    return counts


def sides(digests: np.ndarray, left: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """Return on how many sides, left and right, the value of each digest is found: int8 [n], 1 or 2.

    Args:
        digests: uint8 [n, 8 * w].
        left: bool [n].
        counted: bool [n]; the others are on no side, and get 1.
    """
    order, starts = _groups(digests)
    if not len(order):
        return np.empty(0, np.int8)
    member = np.ones(len(order), bool) if counted is None else counted
    begins = np.flatnonzero(starts)
    on_left = np.logical_or.reduceat((left & member)[order], begins)
    on_right = np.logical_or.reduceat((~left & member)[order], begins)
    both = np.empty(len(order), bool)
    both[order] = np.repeat(on_left & on_right, np.diff(np.append(begins, len(order))))
    return np.where(both & member, 2, 1).astype(np.int8)


def _groups(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an order in which equal digests stand together, earlier ones first, and bool [n]: where another begins."""
    # Sorted, not hashed: Arrow's dictionary_encode is twice as fast and takes twice the memory.
    words = _words(digests)
    order = np.lexsort(words.T[::-1]) if len(words) else np.empty(0, np.int64)
    starts = np.ones(len(order), bool)
    if len(order) > 1:
        starts[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    return order, starts


def _words(digests: np.ndarray) -> np.ndarray:
    """Return digests as native uint64 [n, w], in the order of their bytes."""
    return np.ascontiguousarray(digests).view(">u8").astype(np.uint64)


def _is_name(name: str) -> bool:
    try:
        return len(bytes.fromhex(name)) == DIGEST and len(name) == 2 * DIGEST
    except ValueError:
        return False
