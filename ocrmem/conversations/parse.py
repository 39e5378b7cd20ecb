"""One line of a data file: JSON in OpenAI's ``messages`` or ShareGPT's ``conversations`` form.

Formats: https://platform.openai.com/docs/api-reference/fine-tuning/chat-input (roles, ``weight``, content
parts, ``tool_calls``) and the ``from``/``value`` lists of ShareGPT exports, with the role names that other
trainers read too (``function_call``, ``observation``, ``developer``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from ocrmem.conversations.content import ContentFault, message_text, require_utf8
from ocrmem.conversations.turns import gives_samples
from ocrmem.conversations.types import Message, Role
from ocrmem.errors import Problem
from ocrmem.families import DEFAULT, Family

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
MAX_MESSAGES = 10_000
MAX_ID_LENGTH = 200
CONTENT_ID = "c-"  # how ids made of the content begin
_UNREADABLE = object()  # None is JSON
_BOM = b"\xef\xbb\xbf"


@dataclass
class ParsedLine:
    """A line's id and messages, or its problems."""

    id: str = ""
    messages: tuple[Message, ...] = ()
    problems: list[Problem] = field(default_factory=list)


class _Faults:
    """The problems of one line, which is read for a base model of ``family``."""

    def __init__(self, place: str, family: Family) -> None:
        self.place = place
        self.family = family
        self.found: list[Problem] = []

    def add(self, message: str, remedy: str) -> None:
        self.found.append(Problem(self.place, message, remedy))


def parse_line(raw: bytes, place: str, family: Family = DEFAULT) -> ParsedLine:
    """Read one line; return its conversation, or every problem of it. Bad data raises nothing.

    Args:
        raw: the line without its line feed.
        place: ``file:line`` for the problems.
        family: of the base model; it writes tool calls as text.
    """
    faults = _Faults(place, family)
    value = _decode(raw, faults)
    if value is _UNREADABLE:
        return ParsedLine(problems=faults.found)
    if not isinstance(value, dict):
        faults.add(
            f"holds {_kind(value)}, not an object",
            "Write one conversation a line, as {\"messages\": [...]}; `jq -c '.[]'` takes a list apart",
        )
        return ParsedLine(problems=faults.found)
    messages = _messages(value, faults)
    name = _id(value, messages, faults)
    if not faults.found:
        _check_turns(messages, faults)
    return ParsedLine(name, tuple(messages), faults.found)


def _decode(raw: bytes, faults: _Faults) -> Any:
    if raw.startswith(_BOM):
        faults.add(
            "begins with a byte order mark",
            "Save the file as UTF-8 without BOM, or remove it: sed -i 's/^\\xEF\\xBB\\xBF//' FILE",
        )
        raw = raw.removeprefix(_BOM)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        faults.add(
            f"is not UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1})",
            "Convert the file, for example: iconv -f LATIN1 -t UTF-8 FILE",
        )
        return _UNREADABLE
    if "\x00" in text:
        faults.add(
            f"is broken JSON: {text.count(chr(0))} NUL bytes in it",
            "The file was cut off or overwritten while it was written; export it again",
        )
        return _UNREADABLE
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        faults.add(
            f"is broken JSON: {error.msg} at column {error.colno}",
            "Write one complete JSON object a line; a tool such as `jq -c .` does",
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        faults.add(f"is broken JSON: {reason}", "Write one complete JSON object a line")
    return _UNREADABLE


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(twice)} appears twice in one object")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _messages(value: dict[str, Any], faults: _Faults) -> list[Message]:
    present = [key for key in ("messages", "conversations") if value.get(key) is not None]
    if len(present) != 1:
        if present:
            faults.add('has both "messages" and "conversations"', "Keep the one that is meant")
        else:
            keys = ", ".join(shown(key) for key in list(value)[:8]) or "no keys"
            faults.add(
                f'has neither "messages" nor "conversations" (it has {keys})',
                'Write {"messages": [{"role": "user", "content": "..."}, ...]}',
            )
        return []
    items = value[present[0]]
    if not isinstance(items, list):
        faults.add(f'"{present[0]}" is {_kind(items)}, not a list', "Write a list of messages")
        return []
    if len(items) > MAX_MESSAGES:
        faults.add(
            f"has {len(items)} messages, more than the {MAX_MESSAGES} that one conversation may have",
            "Split it into several conversations",
        )
        return []
    found = [message for n, item in enumerate(items, 1) if (message := _message(item, n, faults))]
    system = value.get("system")
    if isinstance(system, str) and system.strip() and present[0] == "conversations":
        try:
            require_utf8(system)
        except ContentFault as fault:
            faults.add(f'"system" {fault.message}', fault.remedy)
        found.insert(0, Message("system", system))
    return found


def _message(item: Any, number: int, faults: _Faults) -> Message | None:
    if not isinstance(item, dict):
        faults.add(f"message {number} is {_kind(item)}, not an object", "Give it a role and a content")
        return None
    role_key = "from" if "from" in item and "role" not in item else "role"
    content_key = "value" if "value" in item and "content" not in item else "content"
    role = _role(item.get(role_key), role_key, number, faults)
    weight = item.get("weight", 1)
    if isinstance(weight, bool) or weight not in (0, 1, None):
        faults.add(f"message {number} has the weight {shown(weight)}", "Write 0 (no sample from it) or 1")
        weight = 1
    try:
        content = message_text(item, content_key, faults.family if role == "assistant" else None)
    except ContentFault as fault:
        who = f" ({role})" if role else ""
        faults.add(f"message {number}{who} {fault.message}", fault.remedy)
        return None
    if role is None:
        return None
    return Message(role, content, 0 if weight == 0 and role == "assistant" else 1)


def _role(name: Any, key: str, number: int, faults: _Faults) -> Role | None:
    if isinstance(name, str) and name.strip().lower() in ROLES:
        return ROLES[name.strip().lower()]
    if name is None:
        faults.add(f"message {number} has no {key!r}", f"Use one of {_role_names(key)}")
        return None
    near = get_close_matches(name.lower(), ROLES, 1) if isinstance(name, str) else []
    hint = f"Did you mean {near[0]!r}? " if near else ""
    faults.add(f"message {number} has the unknown role {shown(name)}", f"{hint}Use one of {_role_names(key)}")
    return None


def _role_names(key: str) -> str:
    names = ("human", "gpt", "system", "tool") if key == "from" else ("user", "assistant", "system", "tool")
    return ", ".join(names)


def _id(value: dict[str, Any], messages: Sequence[Message], faults: _Faults) -> str:
    given = value.get("id")
    if given is None:
        return content_id(messages)
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    if not isinstance(given, str) or not given.strip():
        faults.add(f'"id" is {shown(given)}', "Give a text or a number, or leave it out")
    elif len(given) > MAX_ID_LENGTH:
        faults.add(f'"id" has {len(given)} characters', f"Use at most {MAX_ID_LENGTH}")
    elif not given.isprintable():
        faults.add(f'"id" has unprintable characters ({shown(given)})', "Use letters, digits and signs")
    else:
        return given
    return ""


def content_id(messages: Sequence[Message]) -> str:
    """Return the id of a conversation that has none: a hash of its messages, the same in whatever file they are."""
    text = json.dumps([[message.role, message.content] for message in messages], ensure_ascii=True)
    return CONTENT_ID + hashlib.sha256(text.encode("ascii")).hexdigest()[:20]


def _check_turns(messages: Sequence[Message], faults: _Faults) -> None:
    if not messages:
        faults.add("has no messages", "Give it at least a user and an assistant message, or remove the line")
    elif not any(message.role == "assistant" for message in messages):
        faults.add("has no assistant turn, so nothing to learn", "Add the answer, or remove the line")
    elif not any(message.role == "user" for message in messages):
        faults.add("has no user turn, so nothing is asked", "Add the question, or remove the line")
    elif not gives_samples(messages):
        faults.add(
            "has no assistant turn with weight after a user turn, so it gives no sample",
            "Set the weight of an answer to 1, or remove the line",
        )


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), "an object")


def shown(value: Any) -> str:
    """Return a value of the data as a message shows it: JSON in ASCII, cut to 60 characters."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else text[:57] + "..."
