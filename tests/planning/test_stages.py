"""The plan of a run in stages: what each takes, and that the run is the sum of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import VISION, small_workspace
from support.planned import described, made_model
from torch.utils.flop_counter import FlopCounterMode

from ocrmem.config import RunConfig
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.planning.flops import flops
from ocrmem.planning.plan import plan
from ocrmem.planning.workload import BatchShape, workload

PRESET = "configs/qwen3-8b-8gpu.yaml"
STAGES = [
    {"objective": "align", "steps": 100, "per_device_batch_size": 16},
    {"objective": "transcribe", "steps": 300},
    {"objective": "answer", "steps": 300, "mix": {"answer": 2, "transcribe": 1}},
    {"objective": "distil", "steps": 100},
]


def staged(tmp_path: Path, stages: list[dict[str, Any]]) -> RunConfig:
    steps = sum(stage["steps"] for stage in stages)
    changes = {"train.stages": stages, "train.max_steps": steps, "train.warmup_steps": 0}
    return RunConfig.load(PRESET, changes | {"paths.dataset": str(tmp_path / "none")})


def test_the_run_is_the_sum_of_its_stages_and_align_runs_no_language_model(tmp_path: Path) -> None:
    found = plan(staged(tmp_path, STAGES), gpu="h100")
    parts = {(part["stage"], part["objective"]): part for part in found["stages"]}
    assert list(parts) == [(1, "align"), (2, "transcribe"), (3, "answer"), (3, "transcribe"), (4, "distil")]
    assert [part["steps"] for part in found["stages"]] == [100, 300, 200, 100, 100]
    assert found["time"]["seconds"] == pytest.approx(sum(part["seconds"] for part in found["stages"]))
    answer = parts[3, "answer"]["seconds_per_step"]
    assert parts[1, "align"]["seconds_per_step"] < 0.05 * answer
    assert parts[3, "answer"]["answer_per_row"] < parts[3, "transcribe"]["answer_per_row"]
    assert answer < parts[4, "distil"]["seconds_per_step"] < 2 * answer  # the teacher reads forward alone
    text = "\n".join(found["summary"])
    assert "1 align" in text
    assert "no language model" in text


def test_align_alone_needs_little_beside_the_weights(tmp_path: Path) -> None:
    align, answer = (
        plan(staged(tmp_path, [{"objective": name, "steps": 100}]), gpu="h100")["memory"]["ways"]["none"]
        for name in ("align", "answer")
    )
    assert align["frozen"] == answer["frozen"]
    assert align["activations"] + align["peak"] < 0.1 * (answer["activations"] + answer["peak"])


def test_the_memory_of_a_run_is_that_of_its_largest_stage(tmp_path: Path) -> None:
    def total(rows: int) -> float:
        stages = [STAGES[1] | {"per_device_batch_size": rows}, STAGES[2]]
        return plan(staged(tmp_path, stages), gpu="h200")["memory"]["total_bytes"]

    assert total(4) > total(2)


def test_the_operations_of_align_are_those_that_torch_counts() -> None:
    model = made_model(norm=True)
    shape, proj, _ = described(model, padded=False)
    tokens = 14
    batch = {
        "memory_features": torch.randn(tokens, VISION),
        "text_ids": torch.arange(6, 6 + 2 * tokens),
        "text_lengths": torch.full((tokens,), 2),
    }
    with FlopCounterMode(display=False) as counted:
        model(**batch).loss.backward()
    planned = flops(shape, proj, BatchShape(2, 0, 0, tokens, 0, padded=False), checkpointing=False)
    assert planned.executed == counted.get_total_flops()


def test_a_dataset_gives_the_lengths_of_its_texts(tmp_path: Path) -> None:
    run = small_workspace(tmp_path, features=False)
    samples = [s for s in MemoryDataset.open(run.paths.dataset).samples("train") if s.has_memory]
    text = sum(sample.text_tokens for sample in samples) / len(samples)
    reading, answer = workload(run, objective="transcribe"), workload(run)
    assert reading.mean.answers / reading.mean.rows == pytest.approx(text)
    assert reading.largest.length > answer.largest.length
    aligned = workload(run, objective="align")
    memory = sum(sample.memory_tokens for sample in samples) / len(samples)
    assert aligned.mean.memory / aligned.mean.rows == pytest.approx(memory)
    assert aligned.mean.positions == 0
