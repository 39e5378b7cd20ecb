"""Lines and files of conversations, and the settings that read them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from ocrmem.config import DataSection, RunConfig

USER, ASSISTANT = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}
GOOD = json.dumps({"id": "good", "messages": [USER, ASSISTANT]})


def line_of(*messages: Any, **fields: Any) -> bytes:
    return json.dumps({"messages": list(messages), **fields}).encode()


def config_for(path: Path, **data: Any) -> RunConfig:
    return RunConfig(data=DataSection(**data).model_copy(update={"path": str(path)}))


def write(folder: Path, **files: str | bytes) -> Path:
    for name, content in files.items():
        raw = content.encode() if isinstance(content, str) else content
        (folder / f"{name}.jsonl").write_bytes(raw)
    return folder


def rejected_bytes(entry: dict[str, str]) -> bytes:
    assert entry["reason"]
    if "line" in entry:
        return entry["line"].encode()
    return base64.b64decode(entry["line_base64"])
