"""The table of page names: the same answers as a list and a dict of strings, in a fraction of the memory."""

from __future__ import annotations

import hashlib
import tracemalloc

import numpy as np
import pytest

from ocrmem.dataset.hash_index import HashIndex, digests_of, first_seen, occurrences, sides
from ocrmem.errors import DataError
from ocrmem.files import sha256_json


def names(count: int, seed: int = 0) -> list[str]:
    return [hashlib.sha256(f"{seed}/{number}".encode()).hexdigest() for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_a_table_says_what_the_list_says(count):
    expected = names(count)
    table = HashIndex.of(expected)
    assert (len(table), list(table), table[1:3]) == (count, expected, expected[1:3])
    assert [table.find(name) for name in expected] == list(range(count))
    assert table.sha256() == sha256_json(expected)
    other = names(7, seed=1)
    assert not any(name in table for name in (*other, "", "zz", "00", 5))
    assert table.places(HashIndex.of([*other, *expected[::-1]])).tolist() == [-1] * 7 + list(range(count))[::-1]


def test_names_that_begin_alike_are_told_apart():
    """The table is sorted by the first 8 bytes alone."""
    alike = [f"{number:064x}" for number in (3, 1, 2)]
    table = HashIndex.of(alike)
    assert [table.find(name) for name in alike] == [0, 1, 2]
    assert table.find(f"{9:064x}") is None
    assert table.places(HashIndex.of([alike[2], f"{9:064x}", alike[1]])).tolist() == [2, -1, 1]


@pytest.mark.parametrize("bad", ["", "00", "x" * 64, "0" * 66])
def test_what_is_no_sha256_is_named(bad):
    with pytest.raises(DataError, match="is not the name of a page"):
        digests_of([*names(3), bad])


def test_repeats_are_counted_and_the_first_is_known():
    a, b, c = names(3)
    digests = digests_of([a, b, a, c, a, b])
    assert first_seen(digests).tolist() == [True, True, False, True, False, False]
    assert occurrences(digests).tolist() == [3, 2, 3, 1, 3, 2]
    left = np.array([True, True, True, False, True, False])
    assert sides(digests, left).tolist() == [1, 2, 1, 1, 1, 2]
    assert sides(digests, left, np.array([True] * 5 + [False])).tolist() == [1, 1, 1, 1, 1, 1]
    nothing = digests_of([])
    assert [len(f) for f in (first_seen(nothing), occurrences(nothing), sides(nothing, left[:0]))] == [0, 0, 0]


def test_a_name_takes_less_than_fifty_bytes():
    count = 20_000
    expected = names(count)
    tracemalloc.start()
    try:
        table = HashIndex.of(expected)
        assert table.find(expected[7]) == 7
        assert tracemalloc.get_traced_memory()[0] < 50 * count
    finally:
        tracemalloc.stop()
