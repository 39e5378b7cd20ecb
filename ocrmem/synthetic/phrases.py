"""The phrases of a language's chat: facts that can be asked about later, and ordinary talk in between.

The phrases themselves are in phrases_en.json and phrases_zh.json beside this file, each one `Language`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import TypeAdapter

LanguageName = Literal["en", "zh"]


@dataclass(frozen=True)
class FactKind:
    """Something a user mentions once and asks about at the end.

    Attributes:
        name: short name, part of no text.
        values: what it can be; a single entry is a pattern of ``#`` (digit) and ``@`` (letter) to be drawn.
        statements: how the user says it, with ``{value}``.
        replies: what the assistant answers; never holds the value.
        questions: how it is asked; never holds the value.
    """

    name: str
    values: tuple[str, ...]
    statements: tuple[str, ...]
    replies: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Language:
    """The phrases of one language.

    Attributes:
        system: the system message.
        facts: kinds of facts; a conversation uses each at most once.
        talk: question and answer templates; ``{slot}`` names an entry of ``slots``.
        slots: words for the templates.
        openers: what may stand in front of a question.
        closers: what may stand behind an answer.
    """

    system: str
    facts: tuple[FactKind, ...]
    talk: tuple[tuple[str, str], ...]
    slots: dict[str, tuple[str, ...]]
    openers: tuple[str, ...]
    closers: tuple[str, ...]


@cache
def load_language(name: LanguageName) -> Language:
    """Read the phrases of "en" or "zh"."""
    text = files("ocrmem.synthetic").joinpath(f"phrases_{name}.json").read_text(encoding="utf-8")
    return TypeAdapter(Language).validate_json(text)
