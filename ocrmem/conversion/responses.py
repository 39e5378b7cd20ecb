"""OpenAI's Responses API: ``input`` and ``output`` as lists of items, and ``instructions``.

Source: https://platform.openai.com/docs/api-reference/responses. Items are messages, calls of functions and of the
API's own tools, their results, and reasoning.
"""

from __future__ import annotations

import json
from typing import Any

from ocrmem.conversations.content import ContentFault
from ocrmem.conversion.draft import Draft, objects, text_of, word
from ocrmem.errors import shown

_ASIDE = {
    "reasoning": "thinking",
    "web_search_call": "searches whose results are not in the file",
    "file_search_call": "searches whose results are not in the file",
}
_ITEMS = frozenset(
    {
        *_ASIDE,
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "mcp_call",
        "code_interpreter_call",
    }
)
_REMEDY = "Only text can be kept: leave the conversation out with --skip-bad, or put text in its place"


def is_item(item: Any) -> bool:
    """Return whether an object is an item that only this form has."""
    kind = word(item.get("type")) if isinstance(item, dict) else ""
    return kind in _ITEMS or (kind == "message" and "role" in item)


def has_items(record: Any) -> bool:
    """Return whether a record is a response, a request, or a list of items."""
    if isinstance(record, list):
        return any(map(is_item, record))
    if not isinstance(record, dict):
        return False
    lists = [record[key] for key in ("input", "output", "items") if isinstance(record.get(key), list)]
    return any(is_item(item) or (isinstance(item, dict) and "role" in item) for items in lists for item in items)


def read_items(record: Any, draft: Draft) -> None:
    """Read what went in and what came out.

    Raises:
        ContentFault: something in it is not text.
    """
    items: list[Any] = record if isinstance(record, list) else []
    if isinstance(record, dict):
        draft.name(record, "id")
        draft.used.update(("instructions", "input", "output", "items"))
        if isinstance(record.get("instructions"), str):
            draft.say("system", record["instructions"])
        for key in ("items", "input", "output"):
            given = record.get(key) or []
            if isinstance(given, str):
                given = [{"role": "assistant" if key == "output" else "user", "content": given}]
            items = [*items, *objects(given, f"items in {key!r}")]
    for item in objects(items, "items"):
        _add(item, draft)


def _add(item: dict[str, Any], draft: Draft) -> None:
    kind = item.get("type") or "message"
    if kind == "message":
        draft.say(str(item.get("role")), text_of(item.get("content")))
    elif kind in ("function_call", "custom_tool_call"):
        custom = {"input": item.get("input")}
        draft.call(item.get("name"), item.get("arguments") if kind == "function_call" else custom, item.get("call_id"))
    elif kind in ("function_call_output", "custom_tool_call_output"):
        output = item.get("output")
        draft.give_back(text_of(output) if _is_content(output) else json.dumps(output), item.get("call_id"))
    elif kind == "mcp_call":
        draft.call(item.get("name"), item.get("arguments"), item.get("id"))
        draft.give_back(text_of(item.get("output") or item.get("error")), item.get("id"))
    elif kind == "code_interpreter_call":
        draft.call("code_interpreter", {"code": item.get("code")}, item.get("id"))
        logs = [output.get("logs") for output in objects(item.get("outputs") or [], "outputs")]
        if not all(isinstance(log, str) for log in logs):
            raise ContentFault("has an output of code that is not text", _REMEDY)
        draft.give_back("\n".join(str(log) for log in logs), item.get("id"))
    elif (name := word(kind)) in _ASIDE:
        draft.aside[_ASIDE[name]] += 1
    else:
        raise ContentFault(f"has an item of type {shown(kind)}", _REMEDY)


def _is_content(output: Any) -> bool:
    return output is None or isinstance(output, str | list)
