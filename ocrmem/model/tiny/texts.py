"""Texts for the tiny language model: a history in one of two forms, then questions and answers.

- turns: the history as ordinary messages of the chat template, as the product writes it below
  ``context_threshold``.
- page: the history's words with their labels between ``<|vision_start|>`` and ``<|vision_end|>``, without
  newlines: what a page gives when each of its vision tokens is one word and blank tokens are dropped. The
  language model never sees a page here; it learns to look things up at the place where memory will stand.

Token ids are put together here rather than by the chat template, which takes longer than the training step; a
test holds the two equal.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ocrmem.facts import IGNORED
from ocrmem.synthetic.tiny import ASK, HISTORY_LINES, LABELS, TinyHistory, draw_history
from ocrmem.synthetic.tokenizer import MARKS, NEWLINE, PAD, TURN_END, TURN_START, VOCABULARY

IDS = {word: index for index, word in enumerate(VOCABULARY)}
ANSWER_TOKENS = 3  # key, value, end of turn
_ROLES = ("user", "assistant")


@dataclass(frozen=True)
class Example:
    """One text.

    Attributes:
        ids: tokens.
        labels: as many; `IGNORED` but for every answer and its end token.
        lookups: for each answer the position of its key, from which the value is predicted, and the position
            where the history states the value.
    """

    ids: list[int]
    labels: list[int]
    lookups: list[tuple[int, int]]


@dataclass(frozen=True)
class TextBatch:
    """Examples side by side: ids and labels int64 [B, T], lookups int64 [n, 3] (row, key, value)."""

    ids: torch.Tensor
    labels: torch.Tensor
    lookups: torch.Tensor


def example(history: TinyHistory, asked: Sequence[tuple[str, str]], *, page: bool) -> Example:
    """Return the history in page or turns form, then questions on its facts or links with their answers."""
    words: list[str] = [TURN_START, "user", NEWLINE, MARKS.start] if page else []
    for index, line in enumerate(history.lines):
        role = _ROLES[index % 2]
        words += [LABELS[role], *line] if page else [TURN_START, role, NEWLINE, *line, TURN_END, NEWLINE]
    if page:
        words.append(MARKS.end)
    stated = [words.index(key) + 1 for key, _ in asked]
    labels = [IGNORED] * len(words)
    lookups = []
    for index, (key, value) in enumerate(asked):
        opened = page and index == 0  # memory stands in the first question's own message
        question = [*([] if opened else [TURN_START, "user", NEWLINE]), ASK, key, TURN_END, NEWLINE]
        words += [*question, TURN_START, "assistant", NEWLINE, key, value, TURN_END, NEWLINE]
        lookups.append((len(words) - 4, stated[index]))
        labels += [IGNORED] * (len(question) + 3) + [IDS[key], IDS[value], IDS[TURN_END], IGNORED]
    return Example([IDS[word] for word in words], labels, lookups)


def answered(history: TinyHistory, pair: tuple[str, str]) -> TinyHistory:
    """Return the history as the second question finds it: with the first question and its answer."""
    return TinyHistory((*history.lines, (ASK, pair[0]), pair), history.facts, history.links)


def collate(examples: Sequence[Example]) -> TextBatch:
    """Pad on the right."""
    longest = max(len(one.ids) for one in examples)
    ids = [one.ids + [IDS[PAD]] * (longest - len(one.ids)) for one in examples]
    labels = [one.labels + [IGNORED] * (longest - len(one.labels)) for one in examples]
    lookups = [(row, *lookup) for row, one in enumerate(examples) for lookup in one.lookups]
    return TextBatch(torch.tensor(ids), torch.tensor(labels), torch.tensor(lookups))


class Lessons:
    """Training texts that grow harder: notes of more and more facts, then facts among filler words.

    Args:
        seed: of the texts.
    """

    LAST = 2
    _NOTES = 0.15  # share of notes that stay in the last level
    _LATER = 0.3  # share of texts whose first question is history already
    _MOST_QUESTIONS = 8
    _MOST_FACTS = ((3, 8), (3, 10), (1, 5))  # least and most facts, a level

    def __init__(self, seed: int) -> None:
        self.source = random.Random(f"tiny lessons {seed}")
        self.level = 0

    def batch(self, size: int) -> TextBatch:
        """Return the next texts, of this level, in both forms."""
        return collate([self._one() for _ in range(size)])

    def _one(self) -> Example:
        source = self.source
        lines = source.choice(HISTORY_LINES)
        notes = self.level < self.LAST or source.random() < self._NOTES
        least, most = self._MOST_FACTS[1 if notes and self.level == self.LAST else self.level]
        history = draw_history(source, lines, source.randint(least, most), notes=notes)
        asked = history.asked(source, self._MOST_QUESTIONS)
        if len(asked) > 1 and source.random() < self._LATER:
            history = answered(history, asked.pop())
        return example(history, asked, page=source.random() < 0.5)


def exam(seed: int, size: int, *, page: bool) -> TextBatch:
    """Return texts with one question each about held-out pairs, which no lesson states."""
    source = random.Random(f"tiny exam {seed} {page}")
    examples = []
    for _ in range(size):
        lines = source.choice(HISTORY_LINES)
        history = draw_history(source, lines, source.randint(1, min(lines, 5)), held_out=True)
        asked = list(history.facts[:2])
        if len(asked) > 1 and source.random() < 0.5:
            history = answered(history, asked.pop())
        examples.append(example(history, asked[:1], page=page))
    return collate(examples)
