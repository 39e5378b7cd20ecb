"""A conversation on its way from another form into this project's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ocrmem.conversations.content import ContentFault, join_parts
from ocrmem.conversations.fields import system_message


@dataclass
class Draft:
    """A conversation being written.

    Attributes:
        id: as the source has it; None if it has none.
        messages: in OpenAI's form.
        aside: what the source holds and a conversation of text does not, such as thinking, by name.
        used: fields of the source's record that were read.
    """

    id: object = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    aside: Counter[str] = field(default_factory=Counter)
    used: set[str] = field(default_factory=set)

    def name(self, record: dict[str, Any], *keys: str) -> None:
        """Take the id from the first of these fields that has one; the others say the same."""
        self.used.update(keys)
        self.id = next((record[key] for key in keys if record.get(key) is not None), None)

    def system(self, record: dict[str, Any]) -> None:
        """Take the system message that stands beside the messages.

        Raises:
            ContentFault: it is not text.
        """
        self.used.update(("system", "system_prompt"))
        if message := system_message(record, None):
            self.say("system", message.content)

    def say(self, role: str, content: str, **fields: Any) -> None:
        """Add a message."""
        self.messages.append({"role": role, "content": content, **fields})

    def call(self, name: object, arguments: object, call_id: object = None) -> None:
        """Add a tool call to the assistant's message that is being said, or to a new one."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.say("assistant", "")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False, default=str)
        made = {"type": "function", "function": {"name": name, "arguments": text}}
        self.messages[-1].setdefault("tool_calls", []).append(made if call_id is None else {"id": call_id, **made})

    def give_back(self, content: str, call_id: object = None) -> None:
        """Add what a tool gave back."""
        self.say("tool", content, **({} if call_id is None else {"tool_call_id": call_id}))


def json_line(value: Any) -> bytes:
    """Return a value as a line of JSON, without the line feed."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        return json.dumps(value, default=str).encode("ascii")


def word(value: Any) -> str:
    """Return what names a kind or another thing, if it is text; otherwise an empty text, which names nothing."""
    return value if isinstance(value, str) else ""


def text_of(content: Any) -> str:
    """Return a content that is a string, a list of text parts, or nothing.

    Raises:
        ContentFault: it is not text.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return join_parts(content)
    raise ContentFault("has a content that is not text", "Leave it out with --skip-bad")


def objects(items: Any, what: str) -> Iterable[dict[str, Any]]:
    """Return a list of objects.

    Raises:
        ContentFault: it is something else.
    """
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ContentFault(f"has {what} that are not a list of objects", "Export it again")
    return items
