"""Made-up conversations as a JSONL file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ocrmem.console import Bar
from ocrmem.errors import ConfigError
from ocrmem.files import write_text


def write_conversations(path: Path, conversations: Iterable[dict[str, Any]], bar: Bar) -> list[dict[str, Any]]:
    """Write conversations, a line each, when all are made, and return them; ``bar`` advances by one for each.

    Raises:
        ConfigError: the file cannot be written.
    """
    made = []
    for conversation in conversations:
        made.append(conversation)
        bar.advance()
    try:
        write_text(path, "".join(json.dumps(conversation, ensure_ascii=False) + "\n" for conversation in made))
    except OSError as error:
        message = f"cannot be written ({error.strerror})"
        raise ConfigError.of(str(path), message, "Choose another --output folder") from None
    return made
