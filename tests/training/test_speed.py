"""Tokens, operations and memory of a process, and what of them a log shows."""

from __future__ import annotations

import pytest
import torch

from ocrmem.planning.workload import BatchShape
from ocrmem.training.speed import Speed, SpeedMeter, logged_speed

BATCH = {
    "input_ids": torch.zeros(2, 3, dtype=torch.long),
    "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    "labels": torch.tensor([[-100, 1, 1], [-100, 1, -100]]),
    "memory_features": torch.zeros(4, 8),
}


def test_padding_is_no_token_and_counts_in_the_operations() -> None:
    seen: list[BatchShape] = []

    def operations(batch: BatchShape) -> float:
        seen.append(batch)
        return batch.positions * 10

    meter = SpeedMeter(operations, peak=100.0)
    meter.saw(BATCH)
    meter.saw(BATCH)
    speed = meter.read()
    shape = seen[0]
    assert (shape.rows, shape.length, shape.square_length, shape.memory, shape.answers) == (4, 3, 9, 8, 6)
    assert speed["mfu"] is not None
    assert speed["mfu"] / speed["tokens_per_second"] == pytest.approx((4 * 3 * 10 / 100) / (2 * 5))
    assert meter.overall() == speed
    meter.read()
    assert meter.overall()["tokens_per_second"] < speed["tokens_per_second"]


def test_what_comes_before_the_first_batch_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("ocrmem.training.speed.time.monotonic", lambda: now)
    meter = SpeedMeter()
    now = 100.0  # models are hashed, engines set up
    assert meter.read()["tokens_per_second"] == 0
    meter = SpeedMeter()
    meter.saw(BATCH)
    now = 102.0
    assert meter.read()["tokens_per_second"] == 2.5


def test_vision_tokens_count_where_no_language_model_runs() -> None:
    meter = SpeedMeter()
    meter.saw({"memory_features": BATCH["memory_features"], "text_ids": torch.zeros(9)})
    speed = meter.read()
    assert speed["tokens_per_second"] > 0
    assert speed["mfu"] is None


def test_a_log_has_all_processes_together_and_each_by_rank() -> None:
    speeds: list[Speed] = [
        {"tokens_per_second": 10.0, "mfu": 0.2, "peak_memory_bytes": 2**30},
        {"tokens_per_second": 30.0, "mfu": 0.4, "peak_memory_bytes": 2**31},
    ]
    assert logged_speed(speeds) == {
        "tokens_per_second": 40.0,
        "mfu": pytest.approx(0.3),
        "peak_memory_gib": 2.0,
        "rank0/tokens_per_second": 10.0,
        "rank0/mfu": 0.2,
        "rank0/peak_memory_gib": 1.0,
        "rank1/tokens_per_second": 30.0,
        "rank1/mfu": 0.4,
        "rank1/peak_memory_gib": 2.0,
    }
    assert logged_speed([{"tokens_per_second": 1.0, "mfu": None, "peak_memory_bytes": None}]) == {
        "tokens_per_second": 1.0
    }
