"""The tiny dialect: conversations small enough that two CPU cores learn memory from them in minutes.

Every word has three letters, so in cells of 8x16 px a word and its space are 32 px wide: one vision token of
the tiny encoder. A fact is two words, key and value (``ana tea``), stated once at a varying row and column
among filler words; ``ask ana`` wants ``ana tea``: the word and the one behind it. Training conversations also
ask for the word in front of a key (``hot ana tea``: ``ask hot`` wants ``hot ana``), so keys are read out and not
only looked for; without that, proj leaves some keys unlearnt. The pairs in `HELD_OUT` are in no training text,
neither in the language model's pre-training nor in training conversations: recalling them takes reading.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


def _words(line: str) -> tuple[str, ...]:
    return tuple(line.split())


KEYS = _words("ana ben cal dan eve fay gus hal ian jim kim lee max ned oli pam")
VALUES = _words(
    "tea fig rye ham egg nut pie jam bun cod hen cow pig owl bat fox "
    "elk yak ant bee cup mug pan pot jar box bag map pen ink gem saw"
)
FILLERS = _words("the and was not but hot old new big red wet dry")
ASK = "ask"
LABELS = {"system": "sys", "user": "usr", "assistant": "bot", "tool": "tol"}  # in front of a page's lines

CONTENT_WORDS = 7  # a page of 256 px has 8 words a row; the first is the label
HISTORY_LINES = (2, 4, 6)  # messages before the questions; a question and its answer add two rows, of 8
FACTS_A_NOTE = 3
_MOST_FACTS = 5
_NOTES_SHARE = 0.5  # training conversations that are notes: facts and hardly anything else, to begin with
_LINK_SHARE = 0.5  # training questions for the word in front of a key, where there is a choice
_VALUE_SHARE = 0.2  # filler words that are values of nobody, so that a value alone gives nothing away
_HELD_OUT_VALUES = 8  # of each key, a quarter

# A string seed is hashed by random itself, alike on every platform and Python version that is supported.
_chosen = random.Random("ocrmem tiny dialect: held-out pairs")
HELD_OUT = frozenset((key, value) for key in KEYS for value in _chosen.sample(VALUES, _HELD_OUT_VALUES))


@dataclass(frozen=True)
class TinyHistory:
    """The messages before the questions, and what they state.

    Attributes:
        lines: words of each message; users' and assistants' messages take turns, the user begins.
        facts: (key, value), in an order that has nothing to do with their place.
        links: (word, key behind it), of words that stand in the history once.
    """

    lines: tuple[tuple[str, ...], ...]
    facts: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...] = ()

    def asked(self, source: random.Random, most: int) -> list[tuple[str, str]]:
        """Draw up to ``most`` facts and links that share no word: an answer must not mislead a later one."""
        facts, links = list(self.facts), list(self.links)
        source.shuffle(facts)
        source.shuffle(links)
        chosen: list[tuple[str, str]] = []
        used: set[str] = set()
        while len(chosen) < most and (facts or links):
            link = links and (not facts or source.random() < _LINK_SHARE)
            pair = (links if link else facts).pop()
            if not used & set(pair):
                chosen.append(pair)
                used |= set(pair)
        return chosen


def draw_history(
    source: random.Random, lines: int, facts: int, *, notes: bool = False, held_out: bool = False
) -> TinyHistory:
    """Draw messages that state facts at random rows and columns.

    Args:
        source: where the randomness comes from.
        lines: messages.
        facts: wanted facts; at most one a message, or three in notes, are stated.
        notes: messages hold facts and at most one word in front of them.
        held_out: facts from `HELD_OUT` only; otherwise from the other pairs only.
    """
    most = FACTS_A_NOTE if notes else 1
    facts = min(facts, len(KEYS), lines * most)
    pairs: dict[str, str] = {}
    for key in source.sample(KEYS, facts):
        pairs[key] = source.choice([value for value in _values(key, held_out) if value not in pairs.values()])
    places = source.sample([line for line in range(lines) for _ in range(most)], facts)
    words: list[list[str]] = [[] for _ in range(lines)]
    for pair, place in zip(pairs.items(), places, strict=True):
        words[place] += pair
    around = _note if notes else _with_fillers
    stated = [around(source, line) for line in words]
    count = Counter(word for line in stated for word in line)
    links = [(a, b) for line in stated for a, b in pairwise(line) if b in KEYS and count[a] == 1]
    return TinyHistory(tuple(map(tuple, stated)), tuple(pairs.items()), tuple(links))


def _values(key: str, held_out: bool) -> list[str]:
    return [value for value in VALUES if ((key, value) in HELD_OUT) == held_out]


def _note(source: random.Random, words: list[str]) -> list[str]:
    return words if words and source.random() < 0.5 else [source.choice((*FILLERS, *VALUES)), *words]


def _with_fillers(source: random.Random, words: list[str]) -> list[str]:
    count = source.randint(0 if words else 1, CONTENT_WORDS - len(words))
    fillers = [source.choice(VALUES if source.random() < _VALUE_SHARE else FILLERS) for _ in range(count)]
    before = source.randint(0, count)
    return fillers[:before] + words + fillers[before:]


def tiny_conversations(
    count: int, seed: int, *, held_out: bool = False, counterfactual: bool = False
) -> Iterator[dict[str, Any]]:
    """Generate conversations in OpenAI's ``messages`` form: up to six messages, then one or two questions.

    The assistant's messages before the questions carry ``weight`` 0, so that only the answers are samples.

    Args:
        count: how many.
        seed: another seed gives other conversations; held-out ones differ from training ones at any seed.
        held_out: facts that no training text states, and no notes.
        counterfactual: each conversation as `with_other_value` changes it; otherwise the same ones.

    Yields:
        ``{"id", "messages"}``; ids are short and unique within training and held-out ones together.
    """
    source = random.Random(f"tiny conversations {seed} {'held out' if held_out else 'train'}")
    for index in range(count):
        notes = not held_out and source.random() < _NOTES_SHARE
        lines = source.choice(HISTORY_LINES)
        most = lines + 1 if notes else min(lines, _MOST_FACTS)
        history = draw_history(source, lines, source.randint(1 if notes else 2, most), notes=notes, held_out=held_out)
        asked = list(history.facts[:2]) if held_out else history.asked(source, 2)
        messages: list[dict[str, Any]] = []
        for turn, words in enumerate(history.lines):
            said = {"content": " ".join(words)}
            messages.append({"role": "assistant", **said, "weight": 0} if turn % 2 else {"role": "user", **said})
        for key, value in asked:
            messages.append({"role": "user", "content": f"{ASK} {key}"})
            messages.append({"role": "assistant", "content": f"{key} {value}"})
        conversation = {"id": f"{'e' if held_out else 't'}{index}", "messages": messages}
        yield with_other_value(conversation, seed) if counterfactual else conversation


def with_other_value(conversation: dict[str, Any], seed: int) -> dict[str, Any]:
    """Change the value that a conversation's last question asks for, and nothing else.

    The pages differ in one word; earlier answers get ``weight`` 0, since their question is not the one whose page
    changed. A held-out pair becomes another held-out pair, any other pair another one that is not held out.

    Args:
        conversation: of `tiny_conversations`; left as it is.
        seed: which of the possible values is taken.

    Returns:
        The conversation with ``-cf`` after its id.
    """
    *earlier, last = conversation["messages"]
    key, value = last["content"].split()
    present = " ".join(message["content"] for message in conversation["messages"]).split()
    others = [other for other in _values(key, (key, value) in HELD_OUT) if other != value]
    free = [other for other in others if other not in present]
    other = random.Random(f"other value {seed} {conversation['id']}").choice(free or others)
    messages = [message | ({"weight": 0} if message["role"] == "assistant" else {}) for message in earlier] + [last]
    # Only the value behind its key: the same word elsewhere is a filler and stays.
    pair = re.compile(rf"\b{key} {value}\b")
    messages = [message | {"content": pair.sub(f"{key} {other}", message["content"])} for message in messages]
    return {"id": f"{conversation['id']}-cf", "messages": messages}
