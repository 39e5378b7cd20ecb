"""GradientFlowCallback in real Trainer runs, Hugging Face's own and ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.faults import after, plain
from support.training import standalone_trainer
from transformers import Trainer, TrainingArguments

from ocrmem.errors import TrainingError
from ocrmem.gradflow import GradientFlowCallback, GradientFlowError


def trainer_of(parts: Any, directory: Path, callback: GradientFlowCallback, **changes: Any) -> Trainer:
    samples = [{"pages": parts.batch["pages"][i % 3], "labels": parts.batch["labels"][i % 3]} for i in range(12)]
    values = {"output_dir": str(directory), "max_steps": 4, "per_device_train_batch_size": 2, "use_cpu": True,
              "report_to": [], "disable_tqdm": True, "save_strategy": "no", "remove_unused_columns": False}  # fmt: skip
    return Trainer(
        model=parts.model,
        args=TrainingArguments(**(values | changes)),
        train_dataset=samples,
        callbacks=[callback],
    )


def test_a_healthy_run_is_checked_once_and_watched_to_its_end(tmp_path: Path) -> None:
    callback = GradientFlowCallback("proj")
    trainer = trainer_of(plain(), tmp_path, callback)
    trainer.train()
    assert callback.report is not None
    assert callback.report.findings == []
    assert len(callback.norms) == 4
    assert all(norm > 0 for norm in callback.norms)


def test_watching_does_not_change_the_run(tmp_path: Path) -> None:
    losses = []
    for callback in (GradientFlowCallback("proj"), None):
        trainer = trainer_of(plain(), tmp_path, callback or GradientFlowCallback("proj"), logging_steps=1)
        if callback is None:
            trainer.remove_callback(GradientFlowCallback)
        trainer.train()
        losses.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (torch.Tensor.detach, "GF006"),
        (lambda t: t.detach().requires_grad_(True), "GF010"),
        (lambda t: t * 0.0, "GF017"),
    ],
    ids=["detach", "silent repair", "times zero"],
)
def test_a_run_that_would_train_nothing_stops_at_step_1_with_the_finding(
    tmp_path: Path, change: Any, code: str
) -> None:
    parts = plain()
    after("proj", change)(parts)
    before = [p.clone() for p in parts.proj.parameters()]
    with pytest.raises(GradientFlowError, match=code):
        trainer_of(parts, tmp_path, GradientFlowCallback("proj")).train()
    assert all(torch.equal(a, b) for a, b in zip(before, parts.proj.parameters(), strict=True))


def test_a_gradient_that_dies_later_stops_the_run_after_the_patience(tmp_path: Path) -> None:
    parts = plain()
    calls: list[int] = []

    def dies(value: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return value if len(calls) <= 3 else value * 0.0

    after("proj", dies)(parts)
    callback = GradientFlowCallback("proj", patience=3)
    with pytest.raises(GradientFlowError, match="no gradient for 3 optimizer steps"):
        trainer_of(parts, tmp_path, callback, max_steps=20).train()
    assert callback.norms[-3:] == [0.0, 0.0, 0.0]


def test_the_callback_works_in_our_trainer_too(tmp_path: Path) -> None:
    trainer = standalone_trainer(tmp_path)
    callback = GradientFlowCallback("proj")
    trainer.add_callback(callback)
    trainer.train()
    assert callback.report is not None
    assert callback.report.ok


def test_our_trainers_failing_backward_carries_the_diagnosis(tmp_path: Path) -> None:
    trainer = standalone_trainer(tmp_path)
    trainer.model.proj.register_forward_hook(lambda _m, _i, output: output.detach())  # type: ignore[union-attr,operator]
    with pytest.raises(TrainingError) as caught:
        trainer.train()
    text = str(caught.value)
    assert text.startswith("step 1: element 0 of tensors does not require grad")
    assert "GF006" in text
    assert "detach" in text
