"""JSON documents value by value: whole whatever their layout, refused where they are damaged, in bounded memory."""

from __future__ import annotations

import io
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrmem.conversion import json_stream
from ocrmem.conversion.json_stream import Unusable, read_values
from ocrmem.errors import DataError


def values(text: str | bytes) -> list[Any]:
    raw = text.encode() if isinstance(text, str) else text
    return list(read_values(io.BytesIO(raw), "f.json"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=6), st.sampled_from([None, 2]), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_any_document_gives_its_values_however_it_is_cut(items: list[Any], indent: int | None, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        assert values(json.dumps(items, indent=indent)) == items
        follow = [item for item in items if isinstance(item, dict)]
        assert values("\n".join(json.dumps(item, indent=indent) for item in follow)) == follow


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"a": 1},\n{"a": ', "f.json:2: is broken JSON: Expecting value"),
        ('[{"a": 1}', "f.json:1: is broken JSON: its list does not end"),
        ('[{"a": 1}\n\n{"a": 2}]', "f.json:3: is broken JSON: a comma or the list's end is missing"),
        ('[{"a": 1}]\n[]', "f.json:2: is broken JSON: something follows its list"),
        ('[{"a": 1}, ]', "Expecting value"),
        ('{"a": "x', "Unterminated string"),
        ('{\n"a": tru}', "f.json:2: is broken JSON: Expecting value"),
        (b'[\n"caf\xe9"]', "f.json:2: is broken JSON: byte 0xe9 is not UTF-8"),
        (b'["\xc3', "is not UTF-8"),
        (b"[1,\n\x00\x00]", "f.json:2: is broken JSON: NUL bytes"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=range(11),
)
def test_a_damaged_document_is_refused_with_its_line(text: str | bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        values(text)
    assert said in str(caught.value)


def test_a_value_that_must_not_be_used_does_not_hide_the_next() -> None:
    digits = "9" * 5000
    read = values('[{"a": 1, "a": 2}, {"b": NaN}, {"c": ' + digits + '}, {"d": 1}]')
    assert [isinstance(value, Unusable) for value in read] == [True, True, True, False]
    assert 'the key "a" appears twice' in str(read[0])
    assert "NaN is not JSON" in str(read[1])
    assert read[3] == {"d": 1}


def test_a_value_that_does_not_end_is_not_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "MAX_VALUE", 1 << 20)
    monkeypatch.setattr(json_stream, "_CHUNK", 1 << 16)
    with pytest.raises(DataError, match="one value has more than"):
        values('["' + "x" * (4 << 20))


def test_a_long_list_is_not_in_memory_at_once() -> None:
    item = json.dumps({"text": "x" * 1000})
    raw = f"[{','.join([item] * 30_000)}]".encode()
    tracemalloc.start()
    assert sum(1 for _ in read_values(io.BytesIO(raw), "f")) == 30_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20 < len(raw)
