"""Lines of any length: none is in memory beyond the bound, and none is lost."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from support.conversation_files import GOOD, config_for, rejected_bytes

from ocrmem.conversations import read_conversations
from ocrmem.conversations.lines import MAX_LINE_BYTES, read_lines
from ocrmem.errors import DataError


def test_a_50_mb_line_is_refused_in_bounded_memory_and_kept(tmp_path: Path) -> None:
    filler = b"x" * (1 << 20)
    with (tmp_path / "train.jsonl").open("wb") as handle:
        handle.write(b'{"id": "big", "messages": [{"role": "user", "content": "')
        for _ in range(50):
            handle.write(filler)
        handle.write(b'"}]}\n' + GOOD.encode() + b"\n")
    size = (tmp_path / "train.jsonl").stat().st_size - len(GOOD) - 2
    with pytest.raises(DataError, match=r"train.jsonl:1: is longer than the 16 MiB"):
        read_conversations(config_for(tmp_path))
    rejects = tmp_path / "out" / "rejects.jsonl"
    tracemalloc.start()
    read = read_conversations(config_for(tmp_path, skip_bad=True), rejects)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [conversation.id for conversation in read] == ["good"]
    assert peak < 5 * MAX_LINE_BYTES  # the bounded head, its base64 and their parts; not the whole line
    kept = rejected_bytes(json.loads(rejects.read_bytes()))
    assert len(kept) == size
    assert kept == (tmp_path / "train.jsonl").read_bytes()[:size]


@pytest.mark.parametrize("ending", [b"", b"\n"])
@pytest.mark.parametrize("length", [9, 10, 11, 25])
def test_lines_at_and_over_the_bound(tmp_path: Path, length: int, ending: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"a\n" + b"b" * length + ending)
    seen = [(line.whole, b"".join(line.chunks()), line.number) for line in read_lines(path, max_bytes=10)]
    assert seen == [(True, b"a", 1), (length <= 10, b"b" * length, 2)]
