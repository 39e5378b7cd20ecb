"""What a training step must not do more of, counted: no timing can show it as surely."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import HIDDEN, small_model
from support.training import collate, standalone_samples, standalone_trainer
from torch import nn

from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.model import modeling
from ocrmem.model.supervised_loss import loss_in_parts


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_on_stored_features_calls_no_encoder_and_makes_logits_of_supervised_positions_alone(
    tmp_path: Path, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model(with_encoder=True)
    assert isinstance(model.ocr_embed, DeepEncoder)
    encoder_calls: list[int] = []
    head_rows: list[tuple[int, ...]] = []
    expected: list[tuple[int, int]] = []
    for module in model.ocr_embed.modules():
        module.register_forward_pre_hook(lambda *_: encoder_calls.append(1))

    def noting(head: nn.Linear, hidden: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        head_rows.append(tuple(hidden.shape))
        return loss_in_parts(head, hidden, *others)

    monkeypatch.setattr(modeling, "loss_in_parts", noting)

    def counting(samples: list[dict[str, Any]]) -> dict[str, Any]:
        expected.append((sum(sample["supervised"] for sample in samples), HIDDEN))
        return collate(samples)

    trainer = standalone_trainer(
        tmp_path,
        model=model,
        samples=standalone_samples(12),
        max_steps=2,
        gradient_accumulation_steps=2,
        gradient_checkpointing=checkpointing,
        save_strategy="no",
    )
    trainer.data_collator = counting
    trainer.train()
    assert encoder_calls == []
    assert len(head_rows) == 4
    assert head_rows == expected[: len(head_rows)]
