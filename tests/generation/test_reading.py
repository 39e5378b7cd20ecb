"""Files to remember: text and conversations of every form, and what is neither."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from ocrmem.conversations import Message
from ocrmem.errors import OcrMemError
from ocrmem.families import DEFAULT
from ocrmem.generation import question
from ocrmem.generation.reading import read_file

NOTED = Message("assistant", "Noted.", weight=0)
TURN = [{"role": "user", "content": "ana"}, {"role": "assistant", "content": "tea"}]
SAID = [Message("user", "ana"), Message("assistant", "tea")]
NOTES = [Message("user", "# Ana\n\ntea"), NOTED]


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("name", "raw", "messages"),
    [
        ("notes.md", b"# Ana\n\ntea\n", NOTES),
        ("notes.txt", "\ufeff# Ana\r\n\r\ntea".encode(), NOTES),
        ("notes", "# Ana\n\ntea".encode("utf-16"), NOTES),
        ("notes.txt.gz", gzip.compress(b"# Ana\n\ntea"), NOTES),
        ("list.txt", b"[ana] tea", [Message("user", "[ana] tea"), NOTED]),
        ("data.txt", b'{"ana": "tea"}', [Message("user", '{"ana": "tea"}'), NOTED]),
        ("chat.json", dumped({"messages": TURN}), SAID),
        ("chat.txt", dumped(TURN), SAID),
        ("chat.jsonl", b"\n".join([dumped({"messages": TURN})] * 2), SAID * 2),
        ("chat.jsonl.gz", gzip.compress(dumped({"messages": TURN})), SAID),
        ("share.json", dumped([{"conversations": [{"from": "human", "value": "ana"}]}]), [SAID[0], NOTED]),
        ("alpaca.json", dumped([{"instruction": "ana", "output": "tea"}]), SAID),
        (
            "export.json",
            dumped([{"uuid": "1", "chat_messages": [{"sender": "human", "text": "ana"}]}]),
            [SAID[0], NOTED],
        ),
        ("answer.json", dumped({"messages": TURN[1:]}), SAID[1:]),
    ],
)
def test_a_file_is_read_by_what_is_in_it(
    name: str, raw: bytes, messages: list[Message], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(raw)
    assert read_file(tmp_path / name, DEFAULT) == messages
    monkeypatch.setattr(question.sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    assert read_file("-", DEFAULT) == messages


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("empty.txt", b" \n", "is empty"),
        ("photo.txt", b"\x89PNG\r\n\x1a\n\0\0", "is damaged: its header cannot be read"),
        ("sound.txt", b"RIFF\0\0", "is binary"),
        ("utf8.txt", b"ana\0tea", "is binary"),
        ("latin.txt", b"ana\nt\xe9a", r"latin\.txt:2: is not UTF-8 \(byte 0xe9\).*iconv"),
        ("paper.pdf", b"%PDF-1.7", "is a PDF.*pdftotext"),
        ("letter.docx", b"PK\x03\x04", "office document"),
        ("cut.txt.gz", gzip.compress(b"ana")[:-4], "damaged gzip"),
        ("settings.json", b'{"ana": "tea"}', "has no form that is known.*ocrmem convert"),
        ("broken.jsonl", dumped({"messages": TURN}) + b'\n{"messages": [', r"broken\.jsonl:2: is broken JSON"),
        ("seen.json", dumped({"messages": TURN, "image": "a.png"}), "only text can be remembered"),
        ("odd.json", dumped({"messages": [{"role": "wizard", "content": "x"}]}), "unknown role"),
        ("none.json", dumped({"messages": []}), "holds no messages"),
        ("notes.json", b"ana", "is not JSON"),
    ],
)
def test_what_cannot_be_remembered_is_told(name: str, raw: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(OcrMemError, match=message):
        read_file(tmp_path / name, DEFAULT)


def test_a_name_that_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("ana", encoding="utf-8")
    with pytest.raises(OcrMemError, match=r"is not there. Did you mean .*notes\.txt\?"):
        read_file(tmp_path / "note.txt", DEFAULT)
    with pytest.raises(OcrMemError, match=r"it is a folder. Name its files"):
        read_file(tmp_path, DEFAULT)
    with pytest.raises(OcrMemError, match="is not there"):
        read_file(tmp_path / "nowhere" / "notes.txt", DEFAULT)
