"""What a message says: a string, a list of text parts, or the calls of tools, as one string."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ocrmem.families import Family


@dataclass(frozen=True)
class ContentFault:
    """Why a message's content cannot be used, to stand after "message 3 (user)"."""

    message: str
    remedy: str


_EMPTY_REMEDY = "Write what was said, or leave the message out"


def message_text(item: dict[str, Any], key: str, calls: Family | None) -> str | ContentFault:
    """The text of a message.

    Tool calls are written as the base model's family writes them, below the content if there is any, so they are
    kept in history and can be an answer.

    Args:
        item: the message as JSON.
        key: "content" or "value".
        calls: the family that writes ``tool_calls`` and ``function_call``; None where those and ``refusal`` may not
            stand in for the content.
    """
    content = item.get(key)
    if isinstance(content, list):
        content = _join_parts(content)
    if isinstance(content, ContentFault):
        return content
    if content is not None and not isinstance(content, str):
        return ContentFault(f"has a {key!r} that is not text", "Write a string or a list of text parts")
    if calls:
        called = _calls(item, calls)
        if isinstance(called, ContentFault):
            return called
        refusal = item.get("refusal")
        if not content and isinstance(refusal, str):
            content = refusal
        content = "\n".join(part for part in (content, called) if part)
    if content is None or (key not in item and not content):
        return ContentFault(f"has no {key!r}", _EMPTY_REMEDY)
    if not content.strip():
        return ContentFault(f"has an empty {key!r}", _EMPTY_REMEDY)
    return text_fault(content) or content


def text_fault(text: str) -> ContentFault | None:
    """Half of a surrogate pair, which JSON can spell (``\\ud83d``) and UTF-8, and so parquet, cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ord(text[error.start])
        return ContentFault(
            f"holds half of a surrogate pair (\\u{half:04x}) at character {error.start + 1}",
            "Write the character itself or both halves; an emoji was probably cut in two",
        )
    return None


def _join_parts(parts: list[Any]) -> str | ContentFault:
    texts = []
    for number, part in enumerate(parts, 1):
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get(kind) if isinstance(part, dict) and kind in ("text", "refusal") else None
        if not isinstance(text, str):
            what = f"of type {json.dumps(kind)[:40]}" if isinstance(kind, str) else "without a type"
            if kind in ("text", "refusal"):
                what = f"of type {kind!r} without its text"
            return ContentFault(
                f"has a content part {what} (part {number})",
                "Only text can be remembered: put a description or a transcript in its place",
            )
        texts.append(text)
    return "\n".join(texts)


def _calls(item: dict[str, Any], family: Family) -> str | ContentFault:
    calls = item.get("tool_calls") or []
    if legacy := item.get("function_call"):
        calls = [*calls, {"function": legacy}] if isinstance(calls, list) else calls
    if not isinstance(calls, list):
        return ContentFault("has 'tool_calls' that are not a list", "Write a list of calls")
    written = []
    for number, call in enumerate(calls, 1):
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not name:
            return ContentFault(
                f"has a tool call without a function name (call {number})",
                'Write {"function": {"name": "...", "arguments": "{...}"}}',
            )
        arguments = function.get("arguments", {})
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        written.append(family.tool_call(name, arguments))
    return "\n".join(written)
