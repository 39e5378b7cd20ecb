"""One line of a data file: JSON in OpenAI's ``messages`` or ShareGPT's ``conversations`` form.

Formats: https://platform.openai.com/docs/api-reference/fine-tuning/chat-input (roles, ``weight``, content
parts, ``tool_calls``) and the ``from``/``value`` lists of ShareGPT exports, with the role names that other
trainers read too (``function_call``, ``observation``, ``developer``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from ocrmem.conversations.content import ContentFault, message_text
from ocrmem.conversations.fields import FORMS, Fault, meaning_faults, media_faults, system_message, unused_fields
from ocrmem.conversations.sources import conversion
from ocrmem.conversations.types import ROLES, Message, Role
from ocrmem.conversations.weights import answer_weight
from ocrmem.errors import Problem, shown
from ocrmem.families import DEFAULT, Family

MAX_MESSAGES = 10_000
MAX_ID_LENGTH = 200
CONTENT_ID = "c-"  # how ids made of the content begin
_BOM = b"\xef\xbb\xbf"
_ONE_OBJECT = "Write one complete JSON object a line"
Report = Callable[[str, str], None]  # of a fault and its remedy


@dataclass
class ParsedLine:
    """A line's id and messages, or its problems; ``unused`` are fields that were not read."""

    id: str = ""
    messages: tuple[Message, ...] = ()
    unused: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def parse_line(raw: bytes, place: str, family: Family = DEFAULT) -> ParsedLine:
    """Read one line; return its conversation, or every problem of it. Bad data raises nothing.

    Args:
        raw: the line without its line feed.
        place: ``file:line`` for the problems.
        family: of the base model; it writes tool calls as text.
    """
    parsed = ParsedLine()

    def report(message: str, remedy: str) -> None:
        parsed.problems.append(Problem(place, message, remedy))

    try:
        value = _decode_object(raw, place, report)
        if value is not None:
            _read(value, family, parsed, place, report)
    except RecursionError:  # decoding went deep enough, and showing what was decoded goes one deeper
        report("is broken JSON: nested too deeply", _ONE_OBJECT)
    if parsed.problems:
        parsed.id, parsed.messages = "", ()
    return parsed


def _read(value: dict[str, Any], family: Family, parsed: ParsedLine, place: str, report: Report) -> None:
    for fault in meaning_faults(value):
        report(*fault)
    parsed.messages = tuple(_messages(value, family, place, report))
    parsed.unused = unused_fields(value)
    parsed.id = _id(value, parsed.messages, report)
    if not parsed.problems:
        _check_turns(parsed.messages, report)


def _decode_object(raw: bytes, place: str, report: Report) -> dict[str, Any] | None:
    if raw.startswith(_BOM):
        remedy = "Save the file as UTF-8 without BOM, or remove it: sed -i 's/^\\xEF\\xBB\\xBF//' FILE"
        report("begins with a byte order mark", remedy)
        raw = raw.removeprefix(_BOM)
    value, fault = decode_json(raw)
    if fault:
        report(*fault)
    elif isinstance(value, dict):
        return value
    else:
        report(f"holds {_kind(value)}, not an object", _other_form(place))
    return None


def _other_form(place: str) -> str:
    file = place.rpartition(":")[0]
    other = f". Of another form: {conversion([file])}" if file else ""
    return f'Write {{"messages": [{{"role": "user", "content": "..."}}, ...]}}{other}'


def decode_json(raw: bytes) -> tuple[Any, Fault | None]:
    """Decode one line; return its value, or what is wrong with it and the remedy."""
    try:
        text = raw.decode("utf-8")
        if "\x00" in text:
            remedy = "The file was cut off or overwritten while it was written; export it again"
            return None, (f"is broken JSON: {text.count(chr(0))} NUL bytes in it", remedy)
        return json.loads(text, object_pairs_hook=unique_keys, parse_constant=no_constant), None
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1})"
        return None, (message, "Convert the file, for example: iconv -f LATIN1 -t UTF-8 FILE")
    except json.JSONDecodeError as error:
        return None, (f"is broken JSON: {error.msg} at column {error.colno}", _ONE_OBJECT)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return None, (f"is broken JSON: {reason}", _ONE_OBJECT)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object, for json's ``object_pairs_hook``; a key twice is a ValueError."""
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)} appears twice in one object")
    return value


def no_constant(name: str) -> Any:
    """Refuse NaN and Infinity, for json's ``parse_constant``."""
    raise ValueError(f"{name} is not JSON")


def _messages(value: dict[str, Any], family: Family, place: str, report: Report) -> list[Message]:
    present = [key for key in FORMS if value.get(key) is not None]
    items = value[present[0]] if present else None
    if not present:
        keys = ", ".join(shown(key) for key in list(value)[:8]) or "no keys"
        report(f'has neither "messages" nor "conversations" (it has {keys})', _other_form(place))
    elif len(present) == 2:
        report('has both "messages" and "conversations"', "Keep the one that is meant")
    elif not isinstance(items, list):
        report(f'"{present[0]}" is {_kind(items)}, not a list', "Write a list of messages")
    elif len(items) > MAX_MESSAGES:
        many = f"has {len(items)} messages, more than the {MAX_MESSAGES} that one conversation may have"
        report(many, "Split it into several conversations")
    else:
        found = [message for n, item in enumerate(items, 1) if (message := _message(item, n, family, report))]
        try:
            system = system_message(value, found[0] if found else None)
        except ContentFault as fault:
            report(fault.message, fault.remedy)
        else:
            return [system, *found] if system else found
    return []


def _message(item: Any, number: int, family: Family, report: Report) -> Message | None:
    if not isinstance(item, dict):
        report(f"message {number} is {_kind(item)}, not an object", "Give it a role and a content")
        return None
    role_key = "from" if "from" in item and "role" not in item else "role"
    content_key = "value" if "value" in item and "content" not in item else "content"
    role = _role(item.get(role_key), role_key, number, report)
    weight = 1
    for fault in media_faults(item, f"message {number} "):
        report(*fault)
    try:
        if role == "assistant":
            weight = answer_weight(item)
    except ContentFault as fault:
        report(f"message {number} {fault.message}", fault.remedy)
    try:
        content = message_text(item, content_key, role, family)
    except ContentFault as fault:
        who = f" ({role})" if role else ""
        report(f"message {number}{who} {fault.message}", fault.remedy)
        return None
    return role and Message(role, content, weight)


def _role(name: Any, key: str, number: int, report: Report) -> Role | None:
    names = "human, gpt, system, tool" if key == "from" else "user, assistant, system, tool"
    if name is None:
        report(f"message {number} has no {key!r}", f"Use one of {names}")
        return None
    text = name.strip().lower() if isinstance(name, str) else ""
    if text not in ROLES:
        near = get_close_matches(text, ROLES, 1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        report(f"message {number} has the unknown role {shown(name)}", f"{hint}Use one of {names}")
    return ROLES.get(text)


def _id(value: dict[str, Any], messages: Sequence[Message], report: Report) -> str:
    given = value.get("id")
    if given is None:
        # A hash of its messages, the same in whatever file they are.
        text = json.dumps([[message.role, message.content] for message in messages], ensure_ascii=True)
        return CONTENT_ID + hashlib.sha256(text.encode("ascii")).hexdigest()[:20]
    if (name := usable_id(given)) is not None:
        return name
    if isinstance(given, bool) or not isinstance(given, str | int) or not str(given).strip():
        report(f'"id" is {shown(given)}', "Give a text or a number, or leave it out")
    elif len(str(given)) > MAX_ID_LENGTH:
        report(f'"id" has {len(str(given))} characters', f"Use at most {MAX_ID_LENGTH}")
    else:
        report(f'"id" has unprintable characters ({shown(given)})', "Use letters, digits and signs")
    return ""


def usable_id(given: object) -> str | None:
    """Return an id as text; None if it is none, too long, or not printable."""
    if isinstance(given, bool) or not isinstance(given, str | int):
        return None
    text = str(given)
    return text if text.strip() and len(text) <= MAX_ID_LENGTH and text.isprintable() else None


def _check_turns(messages: Sequence[Message], report: Report) -> None:
    asked = [index for index, message in enumerate(messages) if message.role == "user"]
    if not messages:
        report("has no messages", "Give it at least a user and an assistant message, or remove the line")
    elif not any(message.role == "assistant" for message in messages):
        report("has no assistant turn, so nothing to learn", "Add the answer, or remove the line")
    elif not asked:
        report("has no user turn, so nothing is asked", "Add the question, or remove the line")
    elif not any(message.role == "assistant" and message.weight for message in messages[asked[0] :]):
        remedy = "Set the weight of an answer to 1, or remove the line"
        report("has no assistant turn with weight after a user turn, so it gives no sample", remedy)


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number", dict: "an object"}
    return "null" if value is None else names[type(value)]
