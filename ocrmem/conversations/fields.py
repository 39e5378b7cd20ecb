"""Fields beside the messages: the system message, what changes a conversation's meaning, and what is not used.

Sources: LLaVA's ``image``, LLaMA-Factory's and ms-swift's ``images``, ``audios``, ``videos``, ``system``, ``kto_tag``
and ``label``, NeMo's ``mask``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from ocrmem.conversations.content import ASK_PICTURE, ContentFault, join_parts, require_utf8
from ocrmem.conversations.types import ROLES, Message
from ocrmem.conversations.weights import SWITCHES, switch
from ocrmem.errors import shown

FORMS = ("messages", "conversations")
SYSTEM_FIELDS = ("system", "system_prompt")
_MEDIA = ("image", "images", "audio", "audios", "video", "videos")
_USED = frozenset({"id", *FORMS, *SYSTEM_FIELDS})
_KEPT_NAME = 60  # characters of a field's name in a report
_MAX_NAMES, _TOLD_NAMES = 1000, 10
Fault = tuple[str, str]  # message and remedy


class FieldCounts:
    """How many conversations have each field that is not used, in bounded memory."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._counts or len(self._counts) < _MAX_NAMES:
                self._counts[name] += 1

    def most_common(self) -> dict[str, int]:
        """Return names with their counts, most frequent first."""
        return dict(sorted(self._counts.items(), key=lambda item: (-item[1], item[0])))

    def told(self) -> str:
        """Return the most frequent ones for a person; empty if there are none."""
        counts = self.most_common()
        first = [f"{shown(name)} ({count:,})" for name, count in list(counts.items())[:_TOLD_NAMES]]
        more = len(counts) - len(first)
        return ", ".join(first) + (f" and {more:,} more" if more else "")


def unused_fields(value: dict[str, Any], used: Collection[str] = _USED) -> list[str]:
    """Return the names of fields that hold something and are not among those that are read."""
    return [key[:_KEPT_NAME] for key, held in value.items() if key not in used and held is not None]


def media_faults(value: dict[str, Any], where: str = "") -> Iterator[Fault]:
    """Yield a fault for each field of a conversation or a message that holds images, sound or films.

    Args:
        where: "message 3 " for a message's fields.
    """
    for key in _MEDIA:
        if value.get(key):
            remedy = f'Put a description or a transcript in the place of its marker and remove "{key}"'
            if key.startswith("image"):
                remedy += ASK_PICTURE
            yield f'{where}has the field "{key}", and only text can be remembered', remedy


def meaning_faults(value: dict[str, Any]) -> Iterator[Fault]:
    """Yield a fault for each field beside the messages that changes what they mean and cannot be honoured."""
    yield from media_faults(value)
    for key in ("label", "kto_tag"):
        if value.get(key) is False:
            yield f'has "{key}": false, which marks its answer as a bad one', "Remove the line, or the field"
    if (role := value.get("mask")) is not None and not _masks_others(role):
        remedy = "Write weight 0 on each answer that is not to be trained, and remove the field"
        yield f'has "mask": {shown(role)} on the whole conversation', remedy
    for key in SWITCHES:
        # A whole conversation's loss may as well be a figure that was measured.
        given = value.get(key)
        if isinstance(given, bool) or (key == "weight" and given is not None):
            try:
                trained = switch(key, given)
            except ContentFault:
                trained = 0
            if not trained:
                remedy = "Write it on the messages instead, or remove the line"
                yield f'has "{key}": {shown(given)} on the whole conversation', remedy


def system_message(value: dict[str, Any], first: Message | None) -> Message | None:
    """Return the system message that stands beside the messages.

    Args:
        value: the conversation.
        first: its first message; it may say the same.

    Raises:
        ContentFault: it is not text, or the messages begin with another; to stand after "has a ...".
    """
    found: list[tuple[str, str]] = []
    for key in SYSTEM_FIELDS:
        given = value.get(key)
        text = join_parts(given) if isinstance(given, list) else given
        if text is None or (isinstance(text, str) and not text.strip()):
            continue
        if not isinstance(text, str):
            raise ContentFault(f'"{key}" is {shown(given)}, not text', "Write a string, or leave it out")
        try:
            require_utf8(text)
        except ContentFault as fault:
            raise ContentFault(f'"{key}" {fault.message}', fault.remedy) from None
        found.append((key, text))
    if not found:
        return None
    key, text = found[0]
    others = [("another", other) for _, other in found[1:]]
    if first and first.role == "system":
        others.append(("a first message", first.content))
    for what, other in others:
        if other != text:
            raise ContentFault(f'has "{key}" and {what} with another system message', "Keep the one that is meant")
    return None if first and first.role == "system" else Message("system", text)


def _masks_others(role: Any) -> bool:
    """Return whether a mask names those whose words are never learnt here: all but the assistant."""
    return isinstance(role, str) and ROLES.get(role.strip().lower(), "assistant") != "assistant"
