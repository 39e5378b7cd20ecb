"""Switches that say whether an answer is trained: each is honoured, or refused by its name."""

from __future__ import annotations

from typing import Any

import pytest
from support.conversation_files import ASSISTANT, USER, line_of

from ocrmem.conversations.parse import parse_line

FLAGS = ("train", "train_on_turn", "loss")
NUMBERS = ("weight", "loss_scale", "loss_weight", "loss_mask", "step_loss_mask")


def weights_of(**switches: Any) -> list[int]:
    parsed = parse_line(line_of(USER, ASSISTANT | switches, USER, ASSISTANT), "f:1")
    assert parsed.problems == []
    return [message.weight for message in parsed.messages if message.role == "assistant"]


@pytest.mark.parametrize(
    ("key", "off", "on"), [(key, False, True) for key in FLAGS] + [(key, 0, 1.0) for key in NUMBERS]
)
def test_a_switch_takes_an_answer_out_of_training(key: str, off: Any, on: Any) -> None:
    assert weights_of(**{key: off}) == [0, 1]
    assert weights_of(**{key: on}) == [1, 1]
    assert weights_of(**{key: None}) == [1, 1]


@pytest.mark.parametrize(
    ("switches", "said"),
    [
        ({"train": "no"}, 'message 2 has the train "no"'),
        ({"loss_scale": 0.3}, "message 2 has the loss_scale 0.3"),
        ({"mask": True}, 'has "mask": true, which says in some files'),
        ({"mask": 0}, 'has "mask": 0, which says in some files'),
        ({"train_detail": [{"begin_offset": 0, "end_offset": 2, "train": False}]}, "and answers are trained whole"),
        ({"weight": 1, "train": False}, "has weight and train that contradict each other"),
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_refused_by_name(switches: dict[str, Any], said: str) -> None:
    problems = parse_line(line_of(USER, ASSISTANT | switches, USER, ASSISTANT), "f:1").problems
    assert [said in problem.message for problem in problems] == [True]


def test_switches_of_others_than_the_assistant_say_nothing() -> None:
    parsed = parse_line(line_of(USER | {"train": "x", "mask": True}, ASSISTANT), "f:1")
    assert parsed.problems == []
