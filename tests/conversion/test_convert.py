"""The verb convert: what it writes validate accepts, and what it does not write is told, counted and kept."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.conversation_files import config_for
from support.foreign import CHATGPT, RECORDS

from ocrmem.cli import main
from ocrmem.conversations import Conversation, read_conversations
from ocrmem.conversion import convert
from ocrmem.errors import ConfigError, DataError, MissingInputError, OcrMemError


def ask(number: int, **fields: Any) -> dict[str, Any]:
    return {"instruction": f"ask {number}", "input": "", "output": f"answer {number}", **fields}


def put(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def read(folder: Path) -> list[Conversation]:
    return read_conversations(config_for(folder))


def report(folder: Path) -> dict[str, Any]:
    [file] = json.loads((folder / "conversion.json").read_text(encoding="utf-8"))["files"]
    return dict(file)


PACKED = {
    "list.json": lambda items: json.dumps(items, indent=1).encode(),
    "one-line.json": lambda items: json.dumps(items).encode(),
    "wrapped.json": lambda items: json.dumps({"version": 2, "data": items}).encode(),
    "pretty.json": lambda items: "\n".join(json.dumps(item, indent=2) for item in items).encode(),
    "lines.jsonl": lambda items: "\n".join(map(json.dumps, items)).encode(),
    "bom.json": lambda items: b"\xef\xbb\xbf" + json.dumps(items).encode(),
    "utf16.json": lambda items: json.dumps(items).encode("utf-16"),
    "packed.json.gz": lambda items: gzip.compress(json.dumps(items).encode()),
    "packed.jsonl.gz": lambda items: gzip.compress("\n".join(map(json.dumps, items)).encode()),
}


@pytest.mark.parametrize("name", [*PACKED, "rows.parquet"])
def test_a_file_is_read_whatever_it_is_packed_in(tmp_path: Path, name: str) -> None:
    items = [ask(number) for number in range(3)]
    if name == "rows.parquet":
        pq.write_table(pa.Table.from_pylist(items), tmp_path / name)
    else:
        (tmp_path / name).write_bytes(PACKED[name](items))
    result = convert([tmp_path / name], tmp_path / "out")
    assert result["written"] == 3
    assert [c.messages[0].content for c in read(tmp_path / "out")] == ["ask 0", "ask 1", "ask 2"]
    assert report(tmp_path / "out")["forms"] == {"Alpaca": 3}
    assert result["summary"][0].endswith("of Alpaca (3): 3 read, 3 written, 0 left out")


@pytest.mark.parametrize("name", RECORDS)
def test_every_form_gives_what_validate_reads(tmp_path: Path, name: str) -> None:
    record, _, expected = RECORDS[name]
    convert([put(tmp_path / "eval.json", record if isinstance(record, list) else [record])], tmp_path / "out")
    [conversation] = read(tmp_path / "out")
    assert conversation.split == "eval"
    assert [message.role for message in conversation.messages] == [said[0] for said in expected]
    fields = record if isinstance(record, dict) else {}
    given = next((fields[key] for key in ("id", "uuid", "conversation_id") if key in fields), None)
    assert conversation.id == str(given) if given else conversation.id.startswith("c-")


def test_what_was_converted_is_converted_to_itself(tmp_path: Path) -> None:
    records = [record for record, _, _ in RECORDS.values() if isinstance(record, dict)]
    convert([put(tmp_path / "train.json", records)], tmp_path / "once", skip_bad=True)
    convert([tmp_path / "once" / "train.jsonl"], tmp_path / "twice")
    assert (tmp_path / "twice" / "train.jsonl").read_bytes() == (tmp_path / "once" / "train.jsonl").read_bytes()


def test_the_report_accounts_for_every_record(tmp_path: Path) -> None:
    picture = ask(4, images=["a.png"])
    records = [ask(1, text="x"), ask(2), ask(1), {"title": "?"}, picture, {**CHATGPT, "mood": "good"}]
    source = put(tmp_path / "train.json", records)
    with pytest.raises(DataError) as caught:
        convert([source], tmp_path / "out")
    assert "3 of 6 records cannot be used; nothing was written" in str(caught.value)
    assert "--skip-bad" in str(caught.value)
    assert not (tmp_path / "out").exists()
    result = convert([source], tmp_path / "out", skip_bad=True)
    found = report(tmp_path / "out")
    assert (found["read"], found["written"], found["left_out"]) == (6, 3, 3)
    assert [reason["message"].partition(" (")[0] for reason in found["reasons"]] == [
        f"says the same as {source}: item 1",
        "has no form that is known",
        'has the field "images", and only text can be remembered',
    ]
    assert found["left_aside"] == {"messages of other branches": 1, "hidden messages": 1, "thinking": 1}
    assert found["unused_fields"] == {"create_time": 1, "default_model_slug": 1, "mood": 1, "text": 1, "title": 1}
    assert found["forms"] == {"Alpaca": 2, "ChatGPT's export": 1}
    kept = [json.loads(line) for line in (tmp_path / "out" / "left-out" / "rejects.jsonl").open(encoding="utf-8")]
    assert [json.loads(entry["line"]) for entry in kept] == [records[2], records[3], records[4]]
    assert len(read(tmp_path / "out")) == result["written"] == 3


def test_own_names_are_mapped(tmp_path: Path) -> None:
    rows = [{"q": "2+2", "a": "4", "who": "teacher", "n": 7, "note": "x"}]
    convert([put(tmp_path / "d.json", rows)], tmp_path / "out", columns="prompt=q,completion=a,system=who,id=n")
    [conversation] = read(tmp_path / "out")
    assert conversation.id == "7"
    assert [(m.role, m.content) for m in conversation.messages] == [
        ("system", "teacher"),
        ("user", "2+2"),
        ("assistant", "4"),
    ]
    assert report(tmp_path / "out")["unused_fields"] == {"note": 1}
    listed = [{"turns": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]}]
    convert([put(tmp_path / "e.json", listed)], tmp_path / "more", columns="messages=turns")
    assert len(read(tmp_path / "more")[0].messages) == 2
    with pytest.raises(DataError, match="has no field 'q'"):
        convert([put(tmp_path / "f.json", [{"x": 1}])], tmp_path / "none", columns="prompt=q,completion=a")


def test_single_questions_are_joined_into_conversations_with_a_history(tmp_path: Path) -> None:
    rows = [ask(n, system="a" if n < 5 else "b", id=f"q{n}") for n in range(8)]
    convert([put(tmp_path / "d.json", rows)], tmp_path / "out", join=3)
    made = read(tmp_path / "out")
    assert [(c.id, c.messages[0].content, len(c.messages)) for c in made] == [
        ("q0", "a", 7),
        ("q3", "a", 5),  # another system message begins another conversation
        ("q5", "b", 7),
    ]
    assert [message.role for message in made[0].messages].count("system") == 1
    found = report(tmp_path / "out")
    assert [found[key] for key in ("read", "written", "joined", "left_out")] == [8, 3, 5, 0]


def test_an_id_given_twice_is_left_to_the_content(tmp_path: Path) -> None:
    files = [put(tmp_path / f"{name}.json", [ask(number, id=1)]) for number, name in enumerate(("a", "b"))]
    result = convert(files, tmp_path / "out")
    assert sorted(conversation.id for conversation in read(tmp_path / "out"))[0] == "1"
    assert result["files"][1]["left_aside"] == {"ids that are no text or were given before": 1}


def test_files_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        put(tmp_path / folder / "train.json", [ask(number)])
    convert([tmp_path / "a" / "train.json", tmp_path / "b" / "train.json"], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jsonl")) == ["train-2.jsonl", "train.jsonl"]
    assert len(read(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[{"instruction": "a", "output": "b"},', "is broken JSON"),
        (gzip.compress(json.dumps([ask(n) for n in range(99)]).encode())[:-20], "is damaged gzip"),
        (b"\x1f\x8b\x08\x00 and more", "is damaged gzip"),
        (b"PAR1 cut off", "is a damaged parquet file"),
        (b"PK\x03\x04", "is a zip archive"),
        (b"\x28\xb5\x2f\xfd", "is compressed with zstd"),
        ("[1]".encode("utf-16")[:-1], "is damaged UTF-16"),
        (b"# Notes\n\nBuy tea.", "is not JSON"),
        (b" \n", "is empty"),
        (b"[]", "there is no conversation of text"),
    ],
    ids=range(10),
)
def test_a_damaged_file_is_an_error_whatever_is_skipped(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "d.json").write_bytes(content)
    with pytest.raises(DataError) as caught:
        convert([tmp_path / "d.json"], tmp_path / "out", skip_bad=True)
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["d.json", "d.jsonl"])
def test_any_depth_of_nesting_is_read_or_refused(tmp_path: Path, name: str) -> None:
    for depth in (*range(100, 900, 200), *range(900, 1000, 7), 5000, 100_000):
        deep = "[" * depth + "]" * depth
        record = '{"x": ' + deep + ', "prompt": "a", "completion": ' + deep + "}"
        (tmp_path / name).write_text(f"[{record}]" if name == "d.json" else record)
        with pytest.raises(DataError):
            convert([tmp_path / name], tmp_path / "out", skip_bad=True)


def test_a_damaged_line_is_an_error_or_left_out_as_it_is(tmp_path: Path) -> None:
    bad = b'{"instruction": "caf\xe9"}'
    (tmp_path / "d.jsonl").write_bytes(json.dumps(ask(1)).encode() + b"\n" + bad + b"\n{")
    with pytest.raises(DataError, match=r"d.jsonl:2: is not UTF-8(?s:.*)d.jsonl:3: is broken JSON"):
        convert([tmp_path / "d.jsonl"], tmp_path / "out")
    assert convert([tmp_path / "d.jsonl"], tmp_path / "out", skip_bad=True)["written"] == 1
    kept = (tmp_path / "out" / "left-out" / "rejects.jsonl").read_text(encoding="utf-8")
    assert "line_base64" in kept
    assert json.loads(kept.splitlines()[1])["line"] == "{"


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"files": ["none.json"]}, MissingInputError, "none.json: cannot be read (No such file"),
        ({"files": ["folder"]}, ConfigError, "folder: is a folder"),
        ({"files": ["pipe"]}, ConfigError, "pipe: is no regular file"),
        ({"output": "folder"}, ConfigError, "folder holds d.json, which is to be read"),
        ({"output": "full"}, ConfigError, "full holds files that an earlier run did not make"),
        ({"output": "file"}, ConfigError, "file is not a folder"),
        ({"form": "vicuna"}, ConfigError, "--from: is 'vicuna'. Use one of chatgpt"),
        ({"form": "chatgpt"}, DataError, "is not of the form ChatGPT's export"),
        ({"columns": "question=q"}, ConfigError, "--map: has 'question=q', which is not one of prompt"),
        ({"columns": "prompt=q"}, ConfigError, "--map: names neither messages nor both"),
        ({"columns": "prompt=q,prompt=r"}, ConfigError, "--map: names prompt twice"),
    ],
    ids=range(11),
)
def test_arguments_that_cannot_be_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    error: type[OcrMemError],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "full"):
        (tmp_path / folder).mkdir()
    (tmp_path / "full" / "mine.jsonl").write_text("precious")
    (tmp_path / "file").write_text("precious")
    os.mkfifo(tmp_path / "pipe")
    source = "folder/d.json" if arguments.get("output") == "folder" else "d.json"
    put(tmp_path / source, [ask(1)])
    with pytest.raises(error) as caught:
        convert(**{"files": [source], "output": "out", **arguments})
    assert said in str(caught.value).replace("folder/d.json", "d.json")
    assert (tmp_path / "full" / "mine.jsonl").read_text() == (tmp_path / "file").read_text() == "precious"


def test_a_later_run_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    convert([put(tmp_path / "a.json", [ask(1)])], tmp_path / "out")
    convert([put(tmp_path / "b.json", [ask(2)])], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.jsonl", "conversion.json", "left-out"]


def test_the_command_tells_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = put(tmp_path / "d.json", [ask(1), {"x": 1}])
    assert main(["convert", str(source), "--output", str(tmp_path / "out")]) == 1
    assert "1 of 2 records" in capsys.readouterr().err
    assert main(["convert", str(source), "--output", str(tmp_path / "out"), "--skip-bad", "--from", "alpaca"]) == 0
    said = capsys.readouterr().out
    assert "a JSON list of Alpaca (1): 2 read, 1 written, 1 left out" in said
    assert f"ocrmem validate --set data.path={tmp_path / 'out'}" in said
