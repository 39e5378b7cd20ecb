"""The forms that conversations come in: how each is recognised by its content, and read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from ocrmem.conversations.content import ContentFault
from ocrmem.conversations.parse import MAX_MESSAGES
from ocrmem.conversion import anthropic, chat, chatgpt, locomo, responses
from ocrmem.conversion.containers import Record
from ocrmem.conversion.draft import Draft


@dataclass(frozen=True)
class Form:
    """A form of conversations.

    Attributes:
        title: for a person.
        matches: whether a record has it; the first form that matches is a record's.
        read: writes a record into a draft, or raises `ContentFault`.
    """

    title: str
    matches: Callable[[Any], bool]
    read: Callable[[Any, Draft], None]


def _has_list(*keys: str) -> Callable[[Any], bool]:
    def matches(record: Any) -> bool:
        return isinstance(record, dict) and any(isinstance(record.get(key), list) for key in keys)

    return matches


def _is_sharegpt(record: Any) -> bool:
    items = record.get("conversations") if isinstance(record, dict) else record
    return isinstance(items, list) and bool(items) and chat.is_message(items[0]) and "from" in items[0]


def _is_chat(record: Any) -> bool:
    return _has_list("messages", "conversations")(record) or (
        isinstance(record, list) and bool(record) and chat.is_message(record[0])
    )


FORMS: dict[str, Form] = {
    "chatgpt": Form("ChatGPT's export", chatgpt.is_tree, chatgpt.read_tree),
    "claude": Form("claude.ai's export", _has_list("chat_messages"), anthropic.read_export),
    "responses": Form("OpenAI's Responses", responses.has_items, responses.read_items),
    "anthropic": Form("Anthropic's Messages", anthropic.has_blocks, anthropic.read_messages),
    "sharegpt": Form("ShareGPT", _is_sharegpt, chat.read_messages),
    "openai": Form("OpenAI's messages", _is_chat, chat.read_messages),
    "locomo": Form("LoCoMo", locomo.is_question, locomo.read_question),
    "rounds": Form("rounds of both speakers", _has_list("conversation"), chat.read_rounds),
    "alpaca": Form(
        "Alpaca",
        lambda record: isinstance(record, dict) and "instruction" in record and bool(chat.question_keys(record)),
        chat.read_question,
    ),
    "prompt": Form("questions with answers", lambda record: bool(chat.question_keys(record)), chat.read_question),
}


def form_of(record: Any) -> Form:
    """Return the form of a record.

    Raises:
        ContentFault: it has none that is known.
    """
    for form in FORMS.values():
        if form.matches(record):
            return form
    if not isinstance(record, dict):
        raise ContentFault("is no conversation", "Leave it out with --skip-bad")
    raise ContentFault(f"has no form that is known (it has {chat.fields(record)})", chat.MAP_REMEDY)


def each_conversation(records: Iterator[Record]) -> Iterator[Record]:
    """Yield a record for each conversation: a list of messages is one, and an object may only wrap a list of them."""
    first = next(records, None)
    if first is None:
        return
    if not first.raw and (chat.is_message(first.value) or responses.is_item(first.value)):
        # Of a longer one so much that it is refused.
        whole = [record.value for record in islice(chain([first], records), MAX_MESSAGES + 1)]
        yield Record(first.place.rpartition(":")[0], whole)
        return
    for record in chain([first], records):
        if (inner := _inner_records(record.value)) is None:
            yield record
            continue
        for number, value in enumerate(inner, 1):
            yield Record(f"{record.place}, record {number}", value)


def _inner_records(record: Any) -> list[Any] | None:
    """Return the records that an object only wraps, as {"data": [...]} does; None for a record of its own.

    Such an object has one list of objects, each of which has a form; or it is LoCoMo's, of which each question is one.
    """
    if locomo.is_sample(record):
        return list(locomo.questions(record)) or None
    if not isinstance(record, dict):
        return None
    lists = [value for value in record.values() if isinstance(value, list) and value]
    if len(lists) != 1 or any(chat.is_message(item) or responses.is_item(item) for item in lists[0]):
        return None
    inner = lists[0]
    return inner if any(form.matches(inner[0]) for form in FORMS.values()) else None
