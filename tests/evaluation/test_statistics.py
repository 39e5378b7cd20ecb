"""Figures that a reader will quote: they must be what they are called."""

from __future__ import annotations

import math

import pytest

from ocrmem.config import GateSection
from ocrmem.dataset.schema import Sample
from ocrmem.evaluation.gate import gate_lines
from ocrmem.evaluation.scoring import Scored, is_right
from ocrmem.evaluation.statistics import compression, evenly_spaced, figures, wilson


def scored(loss: float, tokens: int, right: bool, length: int = 10) -> Scored:
    return Scored("x", loss, tokens, "said", right, length)


def sample(history: int, memory: int, *, pictured: int | None = None, dropped: int = 0) -> Sample:
    return Sample("a#0", "a", "eval", 0, (), (), "x", history, ("p",), memory, 0, 1, 0, dropped, pictured)


def test_loss_is_the_mean_over_tokens_not_over_samples() -> None:
    found = figures([scored(1.0, 1, True, 10), scored(9.0, 4, False, 20)])
    assert found["loss"] == 2.0
    assert found["recall"] == 0.5
    assert found["sequence_tokens"] == 15.0
    assert (found["correct"], found["samples"]) == (1, 2)


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


EVALUATION = {
    "memory": {"loss": 0.5, "recall": 0.9},
    "shuffled": {"loss": 2.0, "recall": 0.1},
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
    ],
)
def test_each_bound_of_the_gate_is_looked_at(bounds: dict[str, float], unmet: list[str]) -> None:
    lines = gate_lines(EVALUATION, GateSection(**bounds))
    assert [line.metric for line in lines if not line.ok] == unmet
    assert all(line.as_dict()["ok"] is line.ok for line in lines)


def test_a_recall_that_is_not_a_number_meets_no_bound() -> None:
    broken = {**EVALUATION, "memory": {"loss": math.nan, "recall": math.nan}}
    assert [line.ok for line in gate_lines(broken, GateSection(min_recall=0.0))] == [False, True, True, False]
