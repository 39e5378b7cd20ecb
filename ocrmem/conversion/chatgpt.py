"""ChatGPT's export: conversations.json, in which each conversation is a tree.

The tree is ``mapping``: nodes by id, with a message, a parent and children. A branch grows where a question was edited
or an answer made again; the one that was shown ends at ``current_node``. OpenAI documents none of it: the content types
below are those of exports from 2023 to 2026.
"""

from __future__ import annotations

import json
from typing import Any

from ocrmem.conversations.content import ContentFault
from ocrmem.conversion.draft import Draft, word
from ocrmem.errors import shown

# Kinds of content that no one was shown, or that only describe others.
_ASIDE = {
    "thoughts": "thinking",
    "reasoning_recap": "thinking",
    "user_editable_context": "custom instructions",
    "model_editable_context": "notes of ChatGPT's memory",
}
_REMEDY = "Only text can be kept: leave the conversation out with --skip-bad, or put text in its place"


def is_tree(record: Any) -> bool:
    """Return whether a record is a conversation of the export."""
    nodes = record.get("mapping") if isinstance(record, dict) else None
    return isinstance(nodes, dict) and all(isinstance(node, dict) and "message" in node for node in nodes.values())


def read_tree(record: dict[str, Any], draft: Draft) -> None:
    """Read the branch that was shown.

    Raises:
        ContentFault: the branch is broken, or something in it is not text.
    """
    draft.name(record, "conversation_id", "id")
    draft.used.update(("mapping", "current_node"))
    nodes: dict[str, dict[str, Any]] = record["mapping"]
    branch = _branch(nodes, record.get("current_node"))
    messages = [node["message"] for node in branch if isinstance(node.get("message"), dict)]
    others = sum(isinstance(node.get("message"), dict) for node in nodes.values()) - len(messages)
    if others:
        draft.aside["messages of other branches"] += others
    for message in messages:
        _say(message, draft)


def _branch(nodes: dict[str, dict[str, Any]], current: Any) -> list[dict[str, Any]]:
    if not nodes:
        return []
    if current is None:
        leaves = [name for name, node in nodes.items() if not node.get("children")]
        if len(leaves) != 1:
            message = f"has {len(leaves)} branches and no current_node that says which was shown"
            raise ContentFault(message, "Export it again, or leave it out with --skip-bad")
        current = leaves[0]
    path: list[dict[str, Any]] = []
    while current is not None:
        node = nodes.get(current) if isinstance(current, str) else None
        if node is None or len(path) > len(nodes):
            message = f"has a branch that leads to {shown(current)}, which is not there"
            raise ContentFault(message if node is None else "has a branch that leads back to itself", "Export it again")
        path.append(node)
        current = node.get("parent")
    return path[::-1]


def _say(message: dict[str, Any], draft: Draft) -> None:
    author = message.get("author")
    role = author.get("role") if isinstance(author, dict) else None
    content, metadata = message.get("content"), message.get("metadata")
    content = content if isinstance(content, dict) else {}
    kind = word(content.get("content_type"))
    if kind in _ASIDE:
        draft.aside[_ASIDE[kind]] += 1
        return
    if isinstance(metadata, dict) and metadata.get("is_visually_hidden_from_conversation"):
        draft.aside["hidden messages"] += 1
        return
    text = _text(content, draft)
    recipient = message.get("recipient")
    if role == "tool":
        draft.give_back(text)
    elif role == "assistant" and isinstance(recipient, str) and recipient not in ("all", "assistant", "user"):
        draft.say("assistant", "")
        draft.call(recipient, _arguments(text))
        if message.get("weight") == 0:
            draft.messages[-1]["weight"] = 0
    elif text.strip():
        draft.say(role or "", text, **({"weight": 0} if role == "assistant" and message.get("weight") == 0 else {}))
    else:
        draft.aside["empty messages"] += 1


def _text(content: dict[str, Any], draft: Draft) -> str:
    """Return a message's text, whatever its kind keeps it under."""
    kind = content.get("content_type")
    if kind in ("text", "multimodal_text"):
        return _parts(content.get("parts"), draft)
    for key in ("text", "result"):
        if isinstance(text := content.get(key), str):  # code, execution_output, tether_quote, system_error and others
            titles = (content.get(name) for name in ("title", "name", "url"))
            return "\n".join([*(title for title in titles if isinstance(title, str) and title), text])
    raise ContentFault(f"has a message of type {shown(kind)}", _REMEDY)


def _parts(parts: Any, draft: Draft) -> str:
    texts: list[str] = []
    kinds: list[str] = []  # of parts that are no text
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])  # audio_transcription
        elif part is not None:
            kinds.append(str(part.get("content_type")) if isinstance(part, dict) else type(part).__name__)
    said = any(text.strip() for text in texts)
    for kind in kinds:
        if not (said and "audio" in kind):  # sound whose words stand beside it
            raise ContentFault(f"has a part of type {shown(kind)}", _REMEDY)
        draft.aside["sound with a transcript"] += 1
    return "\n".join(text for text in texts if text)


def _arguments(text: str) -> str:
    """Return what was sent to a tool as JSON: as it is, or as the one argument ``input``."""
    try:
        if isinstance(json.loads(text), dict):
            return text
    except (ValueError, RecursionError):
        pass
    return json.dumps({"input": text}, ensure_ascii=False)
