"""A message's content as one string: a string, a list of text parts, or tool calls."""

from __future__ import annotations

import json
from typing import Any

from ocrmem.conversations.types import Role
from ocrmem.errors import shown
from ocrmem.families import Family

TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
_PICTURES = ("image", "image_url", "input_image")
ASK_PICTURE = "; a picture itself can be asked about: `ocrmem ask PICTURE --question ...`"
_ANTHROPIC = ("tool_use", "tool_result", "thinking", "redacted_thinking", "document")
_EMPTY_REMEDY = "Write what was said, or leave the message out"


class ContentFault(Exception):
    """Why a message's content cannot be used, to stand after "message 3 (user)"."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message, self.remedy = message, remedy


def message_text(item: dict[str, Any], key: str, role: Role | None, family: Family) -> str:
    """Return the text of a message.

    An assistant's tool calls are written as the base model's family writes them, below the content if there is any, so
    they are kept in history and can be an answer. A tool's answer may be empty.

    Args:
        item: the message as JSON.
        key: "content" or "value".
        role: whose message it is; None if that is not known.
        family: writes ``tool_calls`` and ``function_call``.

    Raises:
        ContentFault: there is none, or it is not text.
    """
    content = item.get(key)
    if isinstance(content, list):
        content = join_parts(content)
    if content is not None and not isinstance(content, str):
        raise ContentFault(f"has a {key!r} that is not text", "Write a string or a list of text parts")
    if role == "assistant":
        refusal = item.get("refusal")
        if not content and isinstance(refusal, str):
            content = refusal
        content = "\n".join(part for part in (content, _calls(item, family)) if part)
    if role == "tool" and key in item:
        content = content or ""
    elif content is None or (key not in item and not content):
        raise ContentFault(f"has no {key!r}", _EMPTY_REMEDY)
    elif not content.strip():
        raise ContentFault(f"has an empty {key!r}", _EMPTY_REMEDY)
    require_utf8(content)
    return content


def require_utf8(text: str) -> None:
    """Refuse half of a surrogate pair, which JSON can spell (``\\ud83d``) and UTF-8, and so parquet, cannot.

    Raises:
        ContentFault: there is one.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"holds half of a surrogate pair (\\u{ord(text[error.start]):04x}) at character {error.start + 1}"
        remedy = "Write the character itself or both halves; an emoji was probably cut in two"
        raise ContentFault(message, remedy) from None


def join_parts(parts: list[Any]) -> str:
    """Return the text of a content that is a list of parts, each a string or an object.

    Raises:
        ContentFault: a part is not text.
    """
    texts = []
    for number, part in enumerate(parts, 1):
        text = part if isinstance(part, str) else part_text(part) if isinstance(part, dict) else None
        if text is None:
            kind = part.get("type") if isinstance(part, dict) else None
            what = f"of type {shown(kind)}" if isinstance(kind, str) else "without a type"
            if kind in TEXT_PARTS:
                what = f"of type {kind!r} without its text"
            remedy = "Only text can be remembered: put a description or a transcript in its place"
            if kind in _PICTURES:
                remedy += ASK_PICTURE
            if kind in _ANTHROPIC:
                remedy = "This is Anthropic's form: `ocrmem convert FILE --output converted` reads it"
            raise ContentFault(f"has a content part {what} (part {number})", remedy)
        texts.append(text)
    return "\n".join(texts)


def part_text(part: dict[str, Any]) -> str | None:
    """Return the text of one part; None if it is something else.

    Its text is under ``text`` (OpenAI, Anthropic), ``value`` (LLaMA-Factory), its type's own name (``refusal``), or in
    an object under one of these (OpenAI's threads); Bedrock's parts have no type.
    """
    kind = part.get("type")
    if kind is not None and kind not in TEXT_PARTS:
        return None
    names = ("text", "value", kind) if kind else ("text",)
    for held in (part.get(name) for name in names):
        if isinstance(held, dict):
            held = held.get("value")
        if isinstance(held, str):
            return held
    return None


def call_arguments(given: Any) -> str:
    """Return the arguments of a tool call as JSON text; an empty text is a call without arguments.

    Raises:
        ContentFault: a text that is not JSON; to stand after "has a tool call".
    """
    if given is None:
        return "{}"
    if not isinstance(given, str):
        return json.dumps(given, ensure_ascii=False)
    try:
        json.loads(given.strip() or "{}")
    except (ValueError, RecursionError):
        remedy = "Write them as JSON, such as {}, or leave the conversation out"
        raise ContentFault(f"whose arguments are not JSON, {shown(given)}", remedy) from None
    return given.strip() or "{}"


def _calls(item: dict[str, Any], family: Family) -> str:
    calls = item.get("tool_calls") or []
    if legacy := item.get("function_call"):
        calls = [*calls, {"function": legacy}] if isinstance(calls, list) else calls
    if not isinstance(calls, list):
        raise ContentFault("has 'tool_calls' that are not a list", "Write a list of calls")
    written = []
    for number, call in enumerate(calls, 1):
        function = (call.get("function") or call) if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not name:
            remedy = 'Write {"function": {"name": "...", "arguments": "{...}"}}'
            raise ContentFault(f"has a tool call without a function name (call {number})", remedy)
        try:
            written.append(family.tool_call(name, call_arguments(function.get("arguments"))))
        except ContentFault as fault:
            raise ContentFault(f"has a tool call {fault.message} (call {number})", fault.remedy) from None
    return "\n".join(written)
