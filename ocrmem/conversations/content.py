"""A message's content as one string: a string, a list of text parts, or tool calls."""

from __future__ import annotations

import json
from typing import Any

from ocrmem.families import Family

_EMPTY_REMEDY = "Write what was said, or leave the message out"


class ContentFault(Exception):
    """Why a message's content cannot be used, to stand after "message 3 (user)"."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message, self.remedy = message, remedy


def message_text(item: dict[str, Any], key: str, calls: Family | None) -> str:
    """Return the text of a message.

    Tool calls are written as the base model's family writes them, below the content if there is any, so they are
    kept in history and can be an answer.

    Args:
        item: the message as JSON.
        key: "content" or "value".
        calls: the family that writes ``tool_calls`` and ``function_call``; None where those and ``refusal`` may not
            stand in for the content.

    Raises:
        ContentFault: there is none, or it is not text.
    """
    content = item.get(key)
    if isinstance(content, list):
        content = _join_parts(content)
    if content is not None and not isinstance(content, str):
        raise ContentFault(f"has a {key!r} that is not text", "Write a string or a list of text parts")
    if calls:
        refusal = item.get("refusal")
        if not content and isinstance(refusal, str):
            content = refusal
        content = "\n".join(part for part in (content, _calls(item, calls)) if part)
    if content is None or (key not in item and not content):
        raise ContentFault(f"has no {key!r}", _EMPTY_REMEDY)
    if not content.strip():
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


def _join_parts(parts: list[Any]) -> str:
    texts = []
    for number, part in enumerate(parts, 1):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get(kind) if kind in ("text", "refusal") else part
        if not isinstance(text, str):
            what = f"of type {json.dumps(kind)[:40]}" if isinstance(kind, str) else "without a type"
            if kind in ("text", "refusal"):
                what = f"of type {kind!r} without its text"
            remedy = "Only text can be remembered: put a description or a transcript in its place"
            raise ContentFault(f"has a content part {what} (part {number})", remedy)
        texts.append(text)
    return "\n".join(texts)


def _calls(item: dict[str, Any], family: Family) -> str:
    calls = item.get("tool_calls") or []
    if legacy := item.get("function_call"):
        calls = [*calls, {"function": legacy}] if isinstance(calls, list) else calls
    if not isinstance(calls, list):
        raise ContentFault("has 'tool_calls' that are not a list", "Write a list of calls")
    written = []
    for number, call in enumerate(calls, 1):
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not name:
            remedy = 'Write {"function": {"name": "...", "arguments": "{...}"}}'
            raise ContentFault(f"has a tool call without a function name (call {number})", remedy)
        arguments = function.get("arguments", {})
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        written.append(family.tool_call(name, arguments))
    return "\n".join(written)
