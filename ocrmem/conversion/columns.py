"""``--map``: a file's own names for the fields of a conversation."""

from __future__ import annotations

from typing import Any

from ocrmem.conversations.content import ContentFault
from ocrmem.conversion import chat
from ocrmem.conversion.draft import Draft
from ocrmem.errors import ConfigError

TARGETS = ("prompt", "completion", "input", "history", "system", "messages", "id")
_EXAMPLE = "Write for example prompt=question,completion=answer"


def read_map(text: str) -> dict[str, str]:
    """Read ``prompt=question,completion=answer``.

    Returns:
        The file's field by the conversation's.

    Raises:
        ConfigError: it is not of that form.
    """
    columns: dict[str, str] = {}
    for part in text.split(","):
        target, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not column or target not in TARGETS:
            known = ", ".join(TARGETS)
            raise ConfigError.of("--map", f"has {part.strip()!r}, which is not one of {known} with a field", _EXAMPLE)
        if target in columns:
            raise ConfigError.of("--map", f"names {target} twice", _EXAMPLE)
        columns[target] = column
    if "messages" not in columns and not {"prompt", "completion"} <= set(columns):
        raise ConfigError.of("--map", "names neither messages nor both prompt and completion", _EXAMPLE)
    return columns


def read_mapped(record: Any, columns: dict[str, str], draft: Draft) -> None:
    """Read a record by its own names.

    Raises:
        ContentFault: a field is missing or is not text.
    """
    required = [columns[name] for name in ("messages", "prompt", "completion") if name in columns]
    for column in required:
        if not isinstance(record, dict) or record.get(column) is None:
            raise ContentFault(f"has no field {column!r} (it has {chat.fields(record)})", chat.MAP_REMEDY)
    renamed = {target: record[column] for target, column in columns.items() if record.get(column) is not None}
    (chat.read_messages if "messages" in columns else chat.read_question)(renamed, draft)
    draft.used = set(columns.values())
