"""The verb ``synth``: seeded recall conversations as JSONL files.

ocrmem synth --output my-data --style mixed --count 200 --eval-count 40 --seed 1
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypedDict

from ocrmem.arguments import as_path
from ocrmem.console import progress_bar
from ocrmem.errors import ConfigError
from ocrmem.files import locked
from ocrmem.synthetic.chat import chat_conversations
from ocrmem.synthetic.notes import note_conversations
from ocrmem.synthetic.output import write_conversations
from ocrmem.synthetic.tiny import tiny_conversations

Style = Literal["tiny", "en", "en-plain", "zh", "mixed"]


class SynthResult(TypedDict):
    """Number of conversations and path of each file."""

    style: Style
    seed: int
    counts: dict[str, int]
    files: dict[str, str]
    summary: list[str]


def synth(
    output: str | Path,
    *,
    style: Style = "mixed",
    count: int = 100,
    eval_count: int = 20,
    seed: int = 0,
    turns: int = 30,
    facts: int | None = None,
    words: int | None = None,
    kinds: Sequence[str] | None = None,
) -> SynthResult:
    """Write train.jsonl, eval.jsonl and counterfactual.jsonl.

    Held-out conversations state values (in style "en" facts: who, what and value together) that training never states;
    the counterfactual ones are the held-out ones with only the asked value changed.

    Args:
        output: folder; files of these names in it are replaced.
        style: "en" for notes in English that state facts of many kinds, each conversation with several questions;
            "en-plain" for short ones of common words, on which the adapter in the box was trained; "zh" for Chinese
            chat, "mixed" for English and Chinese chat by halves; "tiny" for the embedded default's vocabulary.
        count: training conversations.
        eval_count: held-out conversations.
        seed: another seed gives other conversations.
        turns: user turns of a chat.
        facts: facts of a conversation ("tiny" has its own); None: 8 in notes, 5 in plain ones and in chat.
        words: of a conversation's notes, about; None: 120, or 25 of plain ones.
        kinds: of facts in plain notes, a few of "home", "job", "dog" and so on; None: all of them.

    Raises:
        ConfigError: the numbers contradict each other, a kind that plain notes do not have, kinds with another style,
            or the folder cannot be written.
    """
    output = as_path("ocrmem.synth", output)
    for name, number in (("--count", count), ("--eval-count", eval_count)):
        if number < 1:
            raise ConfigError.of(name, f"is {number}", "Give a number above 0")
    if kinds and style != "en-plain":
        raise ConfigError.of("--kinds", f"is for plain notes, and the style is {style}", "Add --style en-plain")
    named = {"kinds": kinds} if kinds else {}
    parts: dict[str, tuple[int, dict[str, Any]]] = {
        "train": (count, {}),
        "eval": (eval_count, {"held_out": True}),
        "counterfactual": (eval_count, {"held_out": True, "counterfactual": True}),
    }
    written: dict[str, str] = {}
    with locked(output, "synth"), progress_bar("writing conversations", count + 2 * eval_count) as bar:
        for name, (number, kind) in parts.items():
            path = Path(output) / f"{name}.jsonl"
            write_conversations(path, _made(style, number, seed, turns, facts, words, kind | named), bar)
            written[name] = str(path)
    return {
        "style": style,
        "seed": seed,
        "counts": {name: number for name, (number, _) in parts.items()},
        "files": written,
        "summary": [f"{name}: {number} conversations in {written[name]}" for name, (number, _) in parts.items()],
    }


def _made(
    style: Style, count: int, seed: int, turns: int, facts: int | None, words: int | None, kind: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    if style == "en":
        return note_conversations(count, seed, 8 if facts is None else facts, words or 120, **kind)
    if style == "en-plain":
        return note_conversations(count, seed, 5 if facts is None else facts, words or 25, plain=True, **kind)
    facts = 5 if facts is None else facts
    if style == "zh":
        return chat_conversations(count, seed, style, turns, facts, **kind)
    if style == "mixed":
        english = chat_conversations(count - count // 2, seed, "en", turns, facts, **kind)
        chinese = chat_conversations(count // 2, seed, "zh", turns, facts, **kind)
        return chain(english, chinese)
    if style == "tiny":
        return tiny_conversations(count, seed, **kind)
    raise ConfigError.of("--style", f"is {style!r}", "Use tiny, en, en-plain, zh or mixed")
