"""What validate says to run is run: the command that a refusal names makes data that is read."""

from __future__ import annotations

import glob
import gzip
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.conversation_files import ASSISTANT, USER, config_for
from support.foreign import CHATGPT

from ocrmem.cli import main
from ocrmem.config import RunConfig
from ocrmem.conversations import read_conversations
from ocrmem.errors import CheckFailed, DataError
from ocrmem.validation import validate

CHAT = {"messages": [USER, ASSISTANT]}
BLOCKS = {
    "messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": [{"type": "thinking"}, "b"]}]
}


def follow(remedy: str) -> None:
    """Run the command in a remedy as a shell would."""
    [command] = re.findall(r"`(ocrmem convert [^`]+)`", remedy)
    words = [found for word in shlex.split(command)[1:] for found in (sorted(glob.glob(word)) or [word])]
    assert main(words) == 0


def as_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([CHAT]), path)


def written(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("train.jsonl", written(json.dumps([CHAT], indent=1).encode())),
        ("train.jsonl", written(json.dumps([CHAT]).encode())),
        ("train.jsonl", written(json.dumps([USER, ASSISTANT]).encode())),
        ("train.jsonl", written(json.dumps(CHAT, indent=1).encode())),
        ("train.jsonl", written(json.dumps(CHAT).encode("utf-16"))),
        ("train.jsonl", written(gzip.compress(json.dumps(CHAT).encode()))),
        ("train.jsonl", as_parquet),
        ("train.jsonl", written(json.dumps({"instruction": "a", "output": "b"}).encode())),
        ("train.jsonl", written(json.dumps(CHATGPT).encode())),
        ("my chats.json", written(json.dumps([CHAT]).encode())),
        ("train.parquet", as_parquet),
        ("train.jsonl.gz", written(gzip.compress(json.dumps(CHAT).encode()))),
    ],
    ids=range(12),
)
def test_the_command_that_a_refusal_names_makes_data_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: Callable[[Path], Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / name)
    with pytest.raises(DataError) as caught:
        read_conversations(config_for(Path("data")))
    follow(caught.value.problems[0].remedy)
    assert len(read_conversations(config_for(Path("converted")))) == 1


def test_many_other_files_are_named_by_their_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my data").mkdir()
    for number in range(7):
        messages = [USER | {"content": str(number)}, ASSISTANT]
        (tmp_path / "my data" / f"{number}.json").write_text(json.dumps([{"messages": messages}]))
    (tmp_path / "my data" / "README.md").write_text("notes")
    with pytest.raises(DataError) as caught:
        read_conversations(config_for(Path("my data")))
    follow(caught.value.problems[0].remedy)
    assert len(read_conversations(config_for(Path("converted")))) == 7


def test_blocks_of_anthropics_form_are_told_to_be_converted(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps(BLOCKS))
    with pytest.raises(DataError, match=r'"thinking" \(part 1\).*`ocrmem convert FILE'):
        read_conversations(config_for(tmp_path))
    assert main(["convert", str(tmp_path / "train.jsonl"), "--output", str(tmp_path / "out")]) == 0
    assert read_conversations(config_for(tmp_path / "out"))[0].messages[1].content == "b"


def test_single_questions_get_a_remedy_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for split, count in (("train", 60), ("eval", 30)):
        turns = [[USER | {"content": f"{split} {n} tea?"}, ASSISTANT | {"content": "fig"}] for n in range(count)]
        lines = "\n".join(json.dumps({"messages": messages}) for messages in turns)
        (tmp_path / "data" / f"{split}.jsonl").write_text(lines)
    values: dict[str, Any] = {
        "model": {"features": "concat", "vision_embedding_size": 128, "context_threshold": 60, "max_seq_length": 256},
        "render": {"page_size": 256, "token_size": 32, "line_height": 32, "max_pages": 2},
    }
    values["model"]["device"] = "cpu"
    with pytest.raises(CheckFailed) as caught:
        validate(RunConfig.from_dict(values))
    [problem] = caught.value.problems
    assert "has 0 tokens" in problem.message
    follow(problem.remedy)
    result = validate(RunConfig.from_dict({**values, "data": {"path": "joined"}}))
    assert result["samples_with_memory"]["train"] > 0
    assert result["samples_with_memory"]["eval"] > 0
