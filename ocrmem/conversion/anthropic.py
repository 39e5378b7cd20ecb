"""Anthropic's forms: the Messages API's content blocks, and the export of claude.ai.

Sources: https://docs.anthropic.com/en/api/messages (blocks of type text, tool_use, tool_result, thinking, document).
The conversations.json of claude.ai has ``chat_messages`` with a ``sender``, a ``text``, such blocks and attachments.
"""

from __future__ import annotations

from typing import Any

from ocrmem.conversations.content import ContentFault, part_text
from ocrmem.conversion.draft import Draft, objects, text_of, word
from ocrmem.errors import shown

_ASIDE = {
    "thinking": "thinking",
    "redacted_thinking": "thinking",
    "token_budget": "token budgets",
    "flag": "flags",
}
BLOCKS = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking", "document", "server_tool_use"})
_REMEDY = "Only text can be kept: leave the conversation out with --skip-bad, or put text in its place"


def has_blocks(record: Any) -> bool:
    """Return whether a record has ``messages`` with blocks that only Anthropic's form has."""
    items = record.get("messages") if isinstance(record, dict) else None
    return any(
        isinstance(part, dict) and word(part.get("type")) in BLOCKS
        for item in (items if isinstance(items, list) else ())
        if isinstance(item, dict) and isinstance(item.get("content"), list)
        for part in item["content"]
    )


def read_messages(record: dict[str, Any], draft: Draft) -> None:
    """Read a request of the Messages API.

    Raises:
        ContentFault: something in it is not text.
    """
    draft.name(record, "id")
    draft.system(record)
    draft.used.add("messages")
    for item in objects(record["messages"], "messages"):
        _say(item.get("role"), item.get("content"), draft)


def read_export(record: dict[str, Any], draft: Draft) -> None:
    """Read a conversation of claude.ai's export: of several branches, the one that was shown.

    Raises:
        ContentFault: something in it is not text.
    """
    draft.name(record, "uuid")
    draft.used.update(("chat_messages", "current_leaf_message_uuid"))
    items = list(objects(record["chat_messages"], "chat_messages"))
    shown_ones = _branch(items, record.get("current_leaf_message_uuid"))
    if left := len(items) - len(shown_ones):
        draft.aside["messages of other branches"] += left
    for item in shown_ones:
        attached = objects(item.get("attachments") or [], "attachments")
        texts = [f"{part.get('file_name', '')}\n{part['extracted_content']}" for part in attached if _extracted(part)]
        names = {word(part.get("file_name")) for part in attached if _extracted(part)}
        for part in (*attached, *objects(item.get("files") or [], "files")):
            if word(part.get("file_name")) not in names:
                raise ContentFault(f"has a file without its text, {shown(part.get('file_name'))}", _REMEDY)
        _say(item.get("sender"), item.get("content") or item.get("text"), draft, texts)


def _extracted(part: dict[str, Any]) -> bool:
    return isinstance(part.get("extracted_content"), str)


def _branch(items: list[dict[str, Any]], leaf: Any) -> list[dict[str, Any]]:
    """Return the messages from the first to the leaf, or to the last one, where they name their parents."""
    by_name = {name: item for item in items if (name := word(item.get("uuid")))}
    if not any(word(item.get("parent_message_uuid")) in by_name for item in items):
        return items
    at = by_name.get(word(leaf)) or items[-1]
    path = [at]
    while (at := by_name.get(word(at.get("parent_message_uuid")), {})) and len(path) < len(items):
        path.append(at)
    return path[::-1]


def _say(who: Any, content: Any, draft: Draft, attached: list[str] | None = None) -> None:
    """Add what one message says, calls and gets back, in its order."""
    role = "user" if who in ("human", "user") else who
    blocks = [content] if isinstance(content, str) else content or []
    if isinstance(blocks, list):
        blocks = [{"type": "text", "text": block} if isinstance(block, str) else block for block in blocks]
    texts = list(attached or [])
    own: dict[str, Any] | None = None  # this message's part that is being said

    def flush() -> None:
        nonlocal own
        if any(text.strip() for text in texts):
            draft.say(role, "\n".join(text for text in texts if text))
            own = draft.messages[-1]
        texts.clear()

    for block in objects(blocks, "blocks"):
        kind = block.get("type")
        if (text := part_text(block)) is not None:
            if own is not None and own.get("tool_calls"):
                own = None  # words after a call are a message of their own
            texts.append(text)
        elif kind == "document" and isinstance(text := _document(block), str):
            texts.append(text)
        elif kind == "tool_use":
            flush()
            if own is None:
                draft.say("assistant", "")
                own = draft.messages[-1]
            draft.call(block.get("name"), block.get("input"), block.get("id"))
        elif kind == "tool_result":
            flush()
            own = None
            draft.give_back(text_of(block.get("content")), block.get("tool_use_id"))
        elif (name := word(kind)) in _ASIDE:
            draft.aside[_ASIDE[name]] += 1
        else:
            raise ContentFault(f"has a block of type {shown(kind)}", _REMEDY)
    flush()


def _document(block: dict[str, Any]) -> str | None:
    source = block.get("source")
    data = source.get("data") if isinstance(source, dict) and source.get("type") == "text" else None
    if not isinstance(data, str):
        return None
    return "\n".join(str(part) for part in (block.get("title"), data) if part)
