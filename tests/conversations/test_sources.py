"""Which files are read, their splits, and files that are not JSONL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.conversation_files import ASSISTANT, GOOD, USER, config_for, rejected_bytes, write

from ocrmem.conversations import read_conversations
from ocrmem.conversations.sources import held_out
from ocrmem.errors import DataError


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a".encode("utf-16"), "is UTF-16"),
        (b"\x1f\x8b\x08\x00", "is compressed with gzip"),
        (b"PAR1....", "is a parquet file"),
        (b"[\n" + GOOD.encode() + b"\n]", "is one JSON list"),
        (b"[" + GOOD.encode() + b",\n" + GOOD.encode() + b"]", "is one JSON list"),
        (b'{\n "messages": []\n}', "is JSON spread over lines"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
    ],
)
def test_a_file_that_is_no_jsonl_is_one_problem_and_kept_whole(tmp_path: Path, content: bytes, said: str) -> None:
    write(tmp_path, train=content, good=GOOD)
    with pytest.raises(DataError, match=said) as caught:
        read_conversations(config_for(tmp_path))
    assert len(caught.value.problems) == 1
    rejects = tmp_path / "out" / "rejects.jsonl"
    assert len(read_conversations(config_for(tmp_path, skip_bad=True), rejects)) == 1
    assert rejected_bytes(json.loads(rejects.read_bytes())).strip() == content.strip()


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("missing", "is not there"),
        ("empty", "holds no .jsonl file. Put"),
        ("others", "holds no .jsonl file but a.json, b.json, c.json, d.json, e.json and 1 more."),
        ("deep", "deep/inner has some"),
        ("pipe", "is neither a file nor a directory"),
        ("nul\x00", "is not there"),
    ],
)
def test_a_path_without_files_is_reported(tmp_path: Path, path: str, said: str, skip_bad: bool) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden.jsonl").write_text(GOOD)
    (tmp_path / "others" / "folder").mkdir(parents=True)
    for name in ("a", "b", "c", "d", "e", "f"):
        (tmp_path / "others" / f"{name}.json").write_text("[]")
    (tmp_path / "deep" / "inner").mkdir(parents=True)
    write(tmp_path / "deep" / "inner", train=GOOD)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError) as caught:
        read_conversations(config_for(tmp_path / path, skip_bad=skip_bad))
    assert said in str(caught.value)


def test_splits_come_from_names_and_otherwise_from_ids(tmp_path: Path) -> None:
    lines = {
        name: json.dumps({"id": name, "messages": [USER, ASSISTANT]})
        for name in ("train", "eval_1", "counterfactual", "more")
    }
    write(tmp_path, **lines)
    read = read_conversations(config_for(tmp_path, eval_fraction=1.0))
    assert {c.id: c.split for c in read} == {
        "counterfactual": "counterfactual",
        "eval_1": "eval",
        "more": "train",
        "train": "train",
    }
    (tmp_path / "eval_1.jsonl").unlink()
    all_held = {c.id: c.split for c in read_conversations(config_for(tmp_path, eval_fraction=1.0))}
    assert all_held == {"counterfactual": "counterfactual", "more": "eval", "train": "eval"}
    many = "\n".join(json.dumps({"id": n, "messages": [USER, ASSISTANT]}) for n in range(1000))
    write(tmp_path, train=many)
    held = [c.id for c in read_conversations(config_for(tmp_path, eval_fraction=0.1)) if c.split == "eval"]
    assert 70 < len(held) < 130
    fewer = "\n".join(many.splitlines()[::2])
    write(tmp_path, train=fewer)
    again = [c.id for c in read_conversations(config_for(tmp_path, eval_fraction=0.1)) if c.split == "eval"]
    assert again == [name for name in held if name == "more" or int(name) % 2 == 0]


def test_holding_out_does_not_depend_on_the_process() -> None:
    code = "from ocrmem.conversations.sources import held_out\nprint([n for n in range(60) if held_out(str(n), 0.2)])"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{[n for n in range(60) if held_out(str(n), 0.2)]}\n"}


def test_a_file_name_that_is_no_text_does_not_break_places(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).write_text(f"{GOOD}\n[]\n")
    rejects = tmp_path / "out" / "rejects.jsonl"
    (read,) = read_conversations(config_for(tmp_path, skip_bad=True), rejects)
    assert read.place.endswith("caf\\udce9.jsonl:1")
    assert json.loads(rejects.read_bytes())["place"].endswith("caf\\udce9.jsonl:2")


def test_one_file_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "chat.txt").write_text(GOOD)
    assert read_conversations(config_for(tmp_path / "chat.txt"))[0].place == f"{tmp_path / 'chat.txt'}:1"
