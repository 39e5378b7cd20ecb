"""Figures that a reader will quote: they must be what they are called."""

from __future__ import annotations

import math

import pytest

from ocrmem.config import GateSection
from ocrmem.dataset.schema import Sample
from ocrmem.errors import MissingInputError
from ocrmem.evaluation.gate import gate_lines
from ocrmem.evaluation.scoring import Scored, is_contained, is_right
from ocrmem.evaluation.statistics import compression, evenly_spaced, figures, wilson


def scored(loss: float, tokens: int, right: bool, length: int = 10, *, contains: bool | None = None) -> Scored:
    return Scored("x", loss, tokens, "said", right, length, right if contains is None else contains)


def sample(history: int, memory: int, *, pictured: int | None = None, dropped: int = 0) -> Sample:
    return Sample("a#0", "a", "eval", 0, (), (), "x", history, ("p",), memory, 0, 1, 0, dropped, pictured)


def test_loss_is_the_mean_over_tokens_not_over_samples() -> None:
    found = figures([scored(1.0, 1, True, 10), scored(9.0, 4, False, 20)])
    assert found["loss"] == 2.0
    assert found["recall"] == 0.5
    assert found["sequence_tokens"] == 15.0
    assert (found["correct"], found["samples"]) == (1, 2)


def test_what_is_said_has_a_share_and_an_interval_of_its_own() -> None:
    found = figures([scored(1.0, 1, True), *(scored(1.0, 1, False, contains=True) for _ in range(9))])
    assert (found["recall"], found["said"]) == (0.1, 1.0)
    assert found["said_interval"] == wilson(10, 10) != found["recall_interval"] == wilson(1, 10)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (95, 100, 0.8882, 0.9785)],
)
def test_the_interval_is_wilsons(correct: int, total: int, low: float, high: float) -> None:
    assert wilson(correct, total) == pytest.approx([low, high], abs=2e-4)


def test_compression_counts_the_marks_and_not_the_dropped_text() -> None:
    found = compression([sample(80, 8), sample(300, 18, pictured=100, dropped=2)])
    assert found["ratio"] == 180 / 30
    assert (found["history_tokens"], found["memory_tokens"]) == (180, 30)
    assert (found["min"], found["max"]) == (5.0, 8.0)
    assert found["samples_with_dropped_pages"] == 1
    assert sum(found["histogram"]["counts"]) == 2
    assert len(found["histogram"]["edges"]) == len(found["histogram"]["counts"]) + 1


@pytest.mark.parametrize(
    ("count", "wanted", "chosen"),
    [(4, None, [0, 1, 2, 3]), (3, 9, [0, 1, 2]), (10, 2, [0, 5]), (10, 0, []), (7, 7, [0, 1, 2, 3, 4, 5, 6])],
)
def test_a_part_of_the_samples_is_spread_over_all(count: int, wanted: int | None, chosen: list[int]) -> None:
    assert evenly_spaced(range(count), wanted) == chosen


@pytest.mark.parametrize(
    ("said", "expected", "right"),
    [
        ("tea", "tea", True),
        (" tea\n", "tea", True),
        ("red  tea", "red tea", True),
        ("Tea", "tea", False),
        ("tea tea", "tea", False),
        ("", "tea", False),
        ("", "", False),
    ],
)
def test_right_is_an_exact_match_but_for_white_space(said: str, expected: str, right: bool) -> None:
    assert is_right(said, expected) is right


@pytest.mark.parametrize(
    ("said", "expected", "contains"),
    [
        ("I would say Tea, then.", "tea", True),
        ("steam", "tea", False),
        ("teas", "tea", False),
        ("red\n  tea", "Red tea", True),
        ("Her dog is called Rex!", "Rex.", True),
        ("Ana's", "ana", True),
        ("tea-time", "tea", True),
        ("CAFÉ", "cafe\u0301", True),
        ("café", "cafe", False),
        ("cafe\u0301s", "cafe\u0301", False),
        ("STRASSE", "straße", True),
        ("ＴＥＡ", "tea", True),
        ("room 13", "3", False),
        ("3.5 or 12,000", "5", False),
        ("at 3:30", "3", False),
        ("It is 3.", "3", True),
        ("3, 4 and 5", "4", True),
        ("她喝茶吧", "茶", True),
        ("共42个", "42", True),
        ("喝tea吧", "tea", True),
        ("서울에서", "서울", True),
        ("ฉันชอบชา", "ชา", True),
        ("כלבלב", "כלב", False),
        ("no", "not at all", False),
        ("???", "?", True),
        ("anything", "", False),
        ("", "tea", False),
    ],
)
def test_said_is_the_answer_as_whole_words_somewhere(said: str, expected: str, contains: bool) -> None:
    assert is_contained(said, expected) is contains


@pytest.mark.parametrize("text", ["tea", "3.", "?", "...", "3.5", "茶", "a\u0301", " Tea  time ", "e.g.", "12:30"])
def test_what_is_exactly_right_is_also_said(text: str) -> None:
    assert is_right(text, text)
    assert is_contained(text, text)


EVALUATION = {
    "memory": {"loss": 0.5, "recall": 0.9, "said": 0.95},
    "shuffled": {"loss": 2.0, "recall": 0.1, "said": 0.2},
    "no_memory": {"loss": 2.5, "recall": 0.05},
}


@pytest.mark.parametrize(
    ("bounds", "unmet"),
    [
        ({}, []),
        ({"min_recall": 0.95}, ["memory.recall"]),
        ({"min_recall": 0.9}, []),
        ({"max_shuffled_recall": 0.05}, ["shuffled.recall"]),
        ({"max_no_memory_recall": 0.01}, ["no_memory.recall"]),
        ({"min_loss_gain": 1.6}, ["shuffled.loss - memory.loss"]),
        ({"min_loss_gain": 1.5}, []),
        ({"min_said": 0.96, "min_recall": 0.95}, ["memory.said"]),
        ({"min_said": 0.95, "min_recall": 0.95}, []),
        ({"max_shuffled_said": 0.15, "max_shuffled_recall": 0.05}, ["shuffled.said"]),
        ({"max_shuffled_said": 0.2, "max_shuffled_recall": 0.05}, []),
    ],
)
def test_each_bound_of_the_gate_is_looked_at(bounds: dict[str, float], unmet: list[str]) -> None:
    lines = gate_lines(EVALUATION, GateSection(**bounds))
    assert [line.metric for line in lines if not line.ok] == unmet
    assert all(line.as_dict()["ok"] is line.ok for line in lines)


def test_a_figure_that_an_older_evaluation_lacks_is_asked_for() -> None:
    older = {**EVALUATION, "memory": {"loss": 0.5, "recall": 0.9}}
    assert all(line.ok for line in gate_lines(older, GateSection()))
    with pytest.raises(MissingInputError, match=r"no memory.said, which register.gate.min_said .*ocrmem evaluate"):
        gate_lines(older, GateSection(min_said=0.5))


def test_a_recall_that_is_not_a_number_meets_no_bound() -> None:
    broken = {**EVALUATION, "memory": {"loss": math.nan, "recall": math.nan}}
    assert [line.ok for line in gate_lines(broken, GateSection(min_recall=0.0))] == [False, True, True, False]
