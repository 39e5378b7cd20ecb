"""Lists of messages, in OpenAI's or ShareGPT's form, and questions with their answers.

Sources: OpenAI's chat fine-tuning files; the data pages of LLaMA-Factory (``instruction``, ``input``, ``output``,
``history``), TRL (``prompt``, ``completion``) and ms-swift (``query``, ``response``, ``conversation``); Dolly's
``context``.
"""

from __future__ import annotations

from typing import Any

from ocrmem.conversations.content import ContentFault
from ocrmem.conversations.types import ROLES
from ocrmem.conversion.draft import Draft, objects, text_of
from ocrmem.errors import shown

ASKED = ("instruction", "prompt", "question", "query", "input")
ANSWERED = ("output", "completion", "response", "answer", "answers")
_BELOW = ("input", "context")  # what a question goes with
_THINKING = ("reasoning_content", "reasoning", "thinking")


def is_message(item: Any) -> bool:
    """Return whether an object is a message of either form."""
    return isinstance(item, dict) and (("role" in item and len(item) > 1) or ("from" in item and "value" in item))


def read_messages(record: Any, draft: Draft) -> None:
    """Read ``messages`` or ``conversations``, or a bare list of messages.

    Raises:
        ContentFault: it is no list of messages.
    """
    items = record
    if isinstance(record, dict):
        draft.name(record, "id")
        key = "messages" if record.get("messages") is not None else "conversations"
        draft.used.add(key)
        items = record[key]
        first = items[0] if isinstance(items, list) and items else None
        if not (isinstance(first, dict) and ROLES.get(str(first.get("role", first.get("from"))).lower()) == "system"):
            draft.system(record)
        elif any(record.get(name) not in (None, "", first.get("content", first.get("value"))) for name in _SYSTEM):
            raise ContentFault("has a system message beside another in its messages", "Keep the one that is meant")
        draft.used.update(_SYSTEM)
    for item in objects(items, "messages"):
        draft.messages.append(_message(item, draft))


_SYSTEM = ("system", "system_prompt")


def read_rounds(record: dict[str, Any], draft: Draft) -> None:
    """Read ``conversation``: a list of rounds, each with what both said."""
    draft.name(record, "id", "conversation_id")
    draft.system(record)
    draft.used.add("conversation")
    for part in objects(record["conversation"], "rounds"):
        if part.get("system"):
            draft.say("system", text_of(part["system"]))
        draft.say("user", text_of(part.get("human", part.get("user", part.get("input")))))
        draft.say("assistant", text_of(part.get("assistant", part.get("output"))))


def question_keys(record: Any) -> tuple[str, str] | None:
    """Return the fields of a question and its answer; None if the record has no such pair."""
    if not isinstance(record, dict):
        return None
    asked = next((key for key in ASKED if record.get(key) is not None), None)
    answered = next((key for key in ANSWERED if record.get(key) is not None), None)
    return (asked, answered) if asked and answered else None


def read_question(record: dict[str, Any], draft: Draft) -> None:
    """Read a question, what it goes with, its answer, and the rounds of ``history`` before it.

    Raises:
        ContentFault: one of them is missing or is not text.
    """
    keys = question_keys(record)
    if keys is None:
        raise ContentFault(f"has no question with an answer (it has {fields(record)})", MAP_REMEDY)
    asked, answered = keys
    below = [key for key in _BELOW if key != asked and record.get(key) not in (None, "")]
    draft.used.update(keys, _BELOW, ("history",))
    draft.name(record, "id")
    draft.system(record)
    history = record.get("history") or []
    for number, pair in enumerate(history if isinstance(history, list) else [history], 1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise ContentFault(f"has a history whose round {number} is not a question and an answer", "Leave it out")
        draft.say("user", text_of(pair[0]))
        draft.say("assistant", text_of(pair[1]))
    if isinstance(record[asked], list):
        draft.messages += [_message(item, draft) for item in objects(record[asked], "messages in the prompt")]
    else:
        draft.say("user", "\n".join(text_of(record[key]) for key in (asked, *below)))
    if isinstance(answer := record[answered], list) and all(map(is_message, answer)):
        draft.messages += [_message(item, draft) for item in answer]
    elif is_message(answer):
        draft.messages.append(_message(answer, draft))
    else:
        draft.say("assistant", text_of(answer))


MAP_REMEDY = "Name its fields, for example --map prompt=QUESTION,completion=ANSWER"


def fields(record: Any) -> str:
    """Return the names of a record's fields for a person."""
    names = [shown(key) for key in record] if isinstance(record, dict) else []
    return ", ".join(names[:8]) + (" and more" if len(names) > 8 else "") or "no fields"


def _message(item: dict[str, Any], draft: Draft) -> dict[str, Any]:
    """Return a message in OpenAI's form, its thinking aside; the words are as they were."""
    kept = {key: value for key, value in item.items() if value is not None or key == "content"}
    for old, new in (("from", "role"), ("value", "content")):
        if old in kept and new not in kept:
            kept[new] = kept.pop(old)
    role = kept.get("role")
    if isinstance(role, str):
        kept["role"] = ROLES.get(role.strip().lower(), role)
    for key in _THINKING:
        if kept.pop(key, None):
            draft.aside["thinking"] += 1
    return kept
