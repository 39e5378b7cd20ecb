"""Whatever stands anywhere in a record, it becomes a conversation that validate reads, or is left out with a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.conversation_files import config_for
from support.foreign import RECORDS

from ocrmem.conversations import read_conversations
from ocrmem.conversion import convert
from ocrmem.conversion.forms import FORMS

STRANGE: list[Any] = [None, True, 0, 0.5, "", "user", [], {}, [1], ["x"], [[]], [{}], {"type": []}, {"text": 3}]
STRANGE += [[{"type": {}}], [{"role": {}, "content": "x"}], {"role": []}, "\ud83d"]


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside of a value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in inner:
        yield from paths(held, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one at a path."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("form", [None, *FORMS])
def test_a_record_with_anything_anywhere_is_written_or_left_out(tmp_path: Path, form: str | None) -> None:
    named = [record for record, own, _ in RECORDS.values() if form in (None, own)]
    odd = [changed(record, path, new) for record in named for path in paths(record) for new in STRANGE]
    lines = [json.dumps(record) for record in (*odd, *named)]
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    result = convert([tmp_path / "d.jsonl"], tmp_path / "out", form=form, skip_bad=True)
    [file] = result["files"]
    assert file["read"] >= len(lines)  # a list may hold several
    assert file["written"] + file["left_out"] == file["read"]
    assert len(read_conversations(config_for(tmp_path / "out"))) == result["written"] > 0
    rejected = (tmp_path / "out" / "left-out" / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(rejected) == result["left_out"] > 0
    assert all(json.loads(line)["reason"] for line in rejected)


@pytest.mark.parametrize("columns", ["prompt=a,completion=b", "messages=a"])
def test_mapped_fields_may_hold_anything(tmp_path: Path, columns: str) -> None:
    good = {"a": "2+2" if "prompt" in columns else RECORDS["openai"][0]["messages"], "b": "4"}
    odd = [{"a": one, "b": other} for one in STRANGE for other in STRANGE]
    (tmp_path / "d.json").write_text(json.dumps([*odd, good]))
    result = convert([tmp_path / "d.json"], tmp_path / "out", columns=columns, skip_bad=True)
    assert result["written"] + result["left_out"] == len(odd) + 1
    assert len(read_conversations(config_for(tmp_path / "out"))) == result["written"] > 0
