"""Reading files: every problem at once, or the good lines, and nothing is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.conversation_files import ASSISTANT, GOOD, USER, config_for, rejected_bytes, write

from ocrmem.conversations import ConversationReader, read_conversations
from ocrmem.conversations.rejects import rejects_file
from ocrmem.errors import DataError


@given(st.lists(st.binary(max_size=60), max_size=8))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_file_gives_problems_or_conversations_and_rejects_hold_the_bytes(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    lines = [line.replace(b"\n", b"") for line in lines] + [GOOD.encode()]
    write(folder, train=b"\n".join(lines))
    rejects = folder / "out" / "rejects.jsonl"
    try:
        read = read_conversations(config_for(folder, skip_bad=True), rejects)
    except DataError:  # the file as a whole is something else: UTF-16, gzip, one document
        read = []
    kept = [rejected_bytes(json.loads(row)) for row in rejects.read_bytes().splitlines()]
    expected = [line for line in lines[:-1] if line.strip()]
    assert kept == (expected if read else [b"\n".join(lines)])
    assert [conversation.id for conversation in read] in ([], ["good"])


def test_every_problem_of_every_file_is_raised_at_once(tmp_path: Path) -> None:
    write(tmp_path, train=f"{GOOD}\n{{\n\n[]", eval=f"{GOOD}\n", other="")
    with pytest.raises(DataError) as caught:
        read_conversations(config_for(tmp_path))
    assert caught.value.exit_code == 1
    places = [problem.place.removeprefix(f"{tmp_path}{os.sep}") for problem in caught.value.problems]
    assert places == ["other.jsonl", "train.jsonl:1", "train.jsonl:2", "train.jsonl:4"]
    assert f"has the id 'good' of {tmp_path / 'eval.jsonl'}:1 again" in str(caught.value)


def test_a_fault_of_many_lines_is_told_once_with_a_count_and_five_places(tmp_path: Path) -> None:
    """52,002 lines of another form gave 9.5 MB of messages."""
    bad = [json.dumps({"instruction": f"ask {n}", "output": "x", f"extra{n}": 1}) for n in range(52_002)]
    write(tmp_path, train="\n".join([*bad, "{", "["]))
    with pytest.raises(DataError) as caught:
        read_conversations(config_for(tmp_path))
    many, *others = caught.value.problems
    assert many.count == 52_002
    assert [place.rsplit(":", 1)[1] for place in (many.place, *many.others)] == ["1", "2", "3", "4", "5"]
    assert "and 52,001 others like it" in str(many)
    assert [problem.place.rsplit(":", 1)[1] for problem in others] == ["52003", "52004"]
    assert len(str(caught.value)) < 2000


def test_what_a_file_has_besides_is_counted(tmp_path: Path) -> None:
    lines = [json.dumps({"messages": [USER | {"content": str(n)}, ASSISTANT], "n": n, "tools": []}) for n in range(3)]
    write(tmp_path, train="\n".join([*lines, GOOD, '{"title": "x"}']))
    reader = ConversationReader(tmp_path, 0.0)
    assert len(list(reader.read())) == 4
    assert reader.unused.most_common() == {"n": 3, "tools": 3, "title": 1}
    assert reader.unused.told() == '"n" (3), "tools" (3), "title" (1)'
    reader.unused.add(f"field{n}" for n in range(100_000))
    assert len(reader.unused.most_common()) == 1000


def test_the_same_conversation_without_an_id_is_found_in_two_files(tmp_path: Path) -> None:
    line = json.dumps({"messages": [USER, ASSISTANT]})
    write(tmp_path, train=line, eval=line)
    with pytest.raises(DataError, match=r"train.jsonl:1: says the same as .*eval.jsonl:1.*set data.eval_fraction"):
        read_conversations(config_for(tmp_path))


def test_skip_bad_keeps_the_good_and_every_bad_line_unchanged(tmp_path: Path) -> None:
    bad = [b'{"id": "caf\xe9"}', '{"text": "日本\\u0000"}  \r'.encode(), b"\x00\x00", GOOD.encode()]
    write(tmp_path, train=b"\n".join([GOOD.encode(), *bad, b""]))
    rejects = tmp_path / "out" / "rejects.jsonl"
    read = read_conversations(config_for(tmp_path, skip_bad=True), rejects)
    assert [conversation.id for conversation in read] == ["good"]
    entries = [json.loads(row) for row in rejects.read_text(encoding="utf-8").splitlines()]
    assert [rejected_bytes(entry) for entry in entries] == bad
    assert [entry["place"].rsplit(":", 1)[1] for entry in entries] == ["2", "3", "4", "5"]
    assert [sorted(entry) for entry in entries][:2] == [
        ["line_base64", "place", "reason"],
        ["line", "place", "reason"],
    ]
    assert not list(rejects.parent.glob(".*"))


def test_skip_bad_writes_an_empty_file_when_nothing_is_rejected(tmp_path: Path) -> None:
    write(tmp_path, train=GOOD)
    rejects = tmp_path / "rejects" / "rejects.jsonl"
    rejects.parent.mkdir()
    rejects.write_text("from an earlier run")
    read_conversations(config_for(tmp_path, skip_bad=True), rejects)
    assert rejects.read_bytes() == b""


def test_skip_bad_with_nothing_good_left_is_an_error_and_still_writes_the_rejects(tmp_path: Path) -> None:
    write(tmp_path, train="[]\n")
    rejects = tmp_path / "out" / "rejects.jsonl"
    with pytest.raises(DataError, match="not an object"):
        read_conversations(config_for(tmp_path, skip_bad=True), rejects)
    assert rejected_bytes(json.loads(rejects.read_bytes())) == b"[]"


def test_rejects_never_overwrite_data(tmp_path: Path) -> None:
    write(tmp_path, rejects=GOOD)
    with pytest.raises(DataError, match="is one of the data files"):
        read_conversations(config_for(tmp_path, skip_bad=True), tmp_path / "rejects.jsonl")
    assert (tmp_path / "rejects.jsonl").read_text() == GOOD


def test_rejects_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, train=f"{GOOD}\n[]")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        read_conversations(config_for(tmp_path, skip_bad=True), tmp_path / "file" / "rejects.jsonl")


def test_a_fault_of_a_data_file_is_not_said_of_the_rejects(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output error"), rejects_file(tmp_path / "rejects.jsonl"):
        raise OSError(5, "Input/output error")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_reported_even_with_skip_bad(tmp_path: Path) -> None:
    write(tmp_path, a=GOOD, b=GOOD)
    (tmp_path / "a.jsonl").chmod(0)
    with pytest.raises(DataError, match="cannot be read"):
        read_conversations(config_for(tmp_path, skip_bad=True))


def test_a_file_that_goes_away_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, a=GOOD)

    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("ocrmem.conversations.read.read_lines", fail)
    reader = ConversationReader(tmp_path, 0.1)
    assert list(reader.read()) == []
    assert reader.unusable
    assert "cannot be read (Input/output error)" in str(reader.problems.listed()[0])


def test_large_data_shows_a_progress_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, a=f"{GOOD}\n")
    advanced: list[float] = []
    monkeypatch.setattr("ocrmem.conversations.read._SHOW_PROGRESS_OVER", 0)
    monkeypatch.setattr("ocrmem.console.Bar.advance", lambda _, by=1: advanced.append(by))
    assert len(list(ConversationReader(tmp_path, 0.0).read())) == 1
    assert sum(advanced) == len(GOOD) + 1
