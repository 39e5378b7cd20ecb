"""A conversation's messages as the text that is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from ocrmem.config import LabelSection
from ocrmem.conversations import Message


def transcript(messages: Sequence[Message], labels: LabelSection) -> str:
    """Return label, content and a newline for each message.

    The closing newline makes every row of a transcript final: one more message changes no row of it.
    """
    prefix = labels.model_dump()
    return "".join(f"{prefix[message.role]}{message.content}\n" for message in messages)


def message_ends(messages: Sequence[Message], labels: LabelSection) -> list[int]:
    """Return where each message ends in the transcript, its newline included."""
    prefix = labels.model_dump()
    return list(accumulate(len(prefix[message.role]) + len(message.content) + 1 for message in messages))
