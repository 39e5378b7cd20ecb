"""Conversations for dataset tests, and comparing folders byte for byte."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

WORDS = re.findall(r"\w+", "the user asks what locker code is cold tea new pot make shall bring notes later maybe plan")


# In front of a chat template: it takes user and assistant by turns and nothing else, as Mistral's and Gemma's do.
BY_TURNS = (
    "{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant must take turns') }}{% endif %}{% endfor %}"
)
# The real encoder's sizes, whatever the defaults are: its checks need no weights.
MODEL = {
    "ocr_model_name": "deepseek-ai/DeepSeek-OCR",
    "features": "sum",
    "vision_embedding_size": 1024,
    "context_threshold": 200,
    "max_seq_length": 2048,
    "drop_blank_tokens": True,
}
RENDER = {"page_size": 512, "token_size": 64, "line_height": 16, "max_pages": 20, "newlines": "break"}


def conversation(name: str, turns: int, words: int = 60, system: str | None = "You assist.") -> dict[str, Any]:
    """A conversation in OpenAI form whose words follow from its name."""
    chosen = random.Random(name)
    messages = [] if system is None else [{"role": "system", "content": system}]
    for turn in range(turns):
        for role in ("user", "assistant"):
            text = " ".join(chosen.choices(WORDS, k=words))
            messages.append({"role": role, "content": f"{text} {name} {turn}"})
    return {"id": name, "messages": messages}


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """One object a line; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def tree(directory: Path) -> dict[str, bytes]:
    """The bytes of every file, by relative name."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}
