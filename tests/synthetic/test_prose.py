"""Prose: what a model is asked for, which of its texts are used, and the conversations made of them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from ocrmem.config import DataSection, RunConfig
from ocrmem.conversations import read_conversations, split_turns
from ocrmem.errors import ModelError
from ocrmem.synthetic.notes import load_phrases
from ocrmem.synthetic.prose import (
    Request,
    Written,
    load_prompts,
    prose_conversations,
    quoted,
    usable,
)

TEXT = "Paid €86.61 to Ann Lee on 4 May (see below).\nThe wifi password is QRT129, and the gate code is 4411."


def echo(requests: Sequence[Request], words: int, seed: str) -> list[Written]:
    """A model that writes down what it was asked for."""
    return [Written(f"{request.start} {request.prompt} Written for {seed}.", True) for request in requests]


def test_requests_are_many_and_leave_no_place_open() -> None:
    rng = random.Random(0)
    requests = [load_prompts().request(rng, load_phrases()) for _ in range(500)]
    assert len({request.prompt for request in requests}) > 490
    assert not [request for request in requests if re.search(r"[{}@#]", request.prompt + request.start)]


@pytest.mark.parametrize(
    ("text", "ended", "used"),
    [
        (TEXT, True, TEXT),
        (f"{TEXT} And then we", False, TEXT),
        (f"{TEXT}\n- milk\n- eg", False, f"{TEXT}\n- milk"),
        (f"{TEXT} It cost $3.5", False, TEXT),
        ("all in one breath and without any end to it that could be seen from here " + "x", False, ""),
        ("Too short.", True, ""),
        (f"{TEXT} \U0001f389", True, ""),
        ("We went to the market and then " * 4, True, ""),
        (f"{TEXT} “Yes” – it’s 20° · done…", True, f"{TEXT} “Yes” – it’s 20° · done…"),
    ],
)
def test_texts_that_are_short_odd_or_go_in_circles_are_not_used(text: str, ended: bool, used: str) -> None:
    assert usable(Written(text, ended)) == used


def test_a_quote_is_there_once_and_its_answer_follows_it() -> None:
    rng = random.Random(0)
    for _ in range(50):
        found = quoted(rng, TEXT)
        assert found
        quote, answer = found
        assert TEXT.count(quote) == TEXT.count(f"{quote} {answer}") == 1
        assert 1 <= len(answer.split()) <= 6
        assert answer[-1] not in ".,)"
    assert quoted(rng, "Nothing follows here.") is None


def test_a_conversation_is_read_as_one_sample_with_the_text_as_its_history(tmp_path: Path) -> None:
    made = list(prose_conversations(5, 3, 60, echo))
    (tmp_path / "prose.jsonl").write_text("\n".join(map(json.dumps, made)), encoding="utf-8")
    for conversation in read_conversations(RunConfig(data=DataSection(path=str(tmp_path)))):
        (sample,) = split_turns(conversation, 1)
        assert sample.split == "train"
        assert sample.answer in sample.history[0].content
        assert "Written for prose-3-0000" in sample.history[0].content


def test_a_seed_gives_the_same_and_another_seed_other_conversations() -> None:
    assert list(prose_conversations(70, 1, 60, echo)) == list(prose_conversations(70, 1, 60, echo))
    assert list(prose_conversations(3, 1, 60, echo)) != list(prose_conversations(3, 2, 60, echo))


def test_a_model_that_only_repeats_itself_is_told() -> None:
    with pytest.raises(ModelError, match=r"of 64 texts that it wrote 0 can be used.*Name a chat model"):
        next(prose_conversations(1, 0, 60, lambda requests, words, seed: [Written("so " * 40, True)] * len(requests)))
