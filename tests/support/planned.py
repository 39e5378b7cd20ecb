"""A Qwen3 with distinct widths and the real MEMModel around it, small enough to run."""

from __future__ import annotations

from typing import Any

import torch
from support.models import PLACEHOLDER, VISION, small_base, small_config

from ocrmem.families import Shape
from ocrmem.model.modeling import MEMModel
from ocrmem.planning.activations import Lora, Projection
from ocrmem.planning.shapes import shape_of
from ocrmem.planning.workload import BatchShape

ROWS, LENGTH, MEMORY, ANSWER = 2, 40, 6, 3  # a row's memory and answer


def made_model(
    *, layers: int = 2, dtype: torch.dtype = torch.float32, norm: bool = False, lora: Lora | None = None
) -> MEMModel:
    """No two widths of it are equal, so that an exchanged one shows."""
    base = small_base(
        72,
        hidden_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=112,
    )
    config = small_config(projector_norm=norm, projector_hidden_size=80)
    if lora is not None:
        config.lora = {"rank": lora.rank, "alpha": 16.0, "targets": list(lora.targets)}
    return MEMModel(config, base.to(dtype)).train()


def made_batch(*, padded: bool) -> dict[str, Any]:
    ids = torch.randint(6, 60, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    ids[:, :MEMORY] = PLACEHOLDER
    mask = torch.ones_like(ids)
    if padded:
        mask[0, -2:] = 0
    labels = torch.full_like(ids, -100)
    labels[:, -2 - ANSWER : -2] = ids[:, -2 - ANSWER : -2]
    features = torch.randn(ROWS * MEMORY, VISION)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "memory_features": features}


def described(model: MEMModel, *, padded: bool) -> tuple[Shape, Projection, BatchShape]:
    """The same model and batch as the plan's arithmetic takes them."""
    proj = Projection(VISION, model.proj.fc1.out_features, model.config.projector_norm)
    batch = BatchShape(ROWS, LENGTH, LENGTH**2, ROWS * MEMORY, ROWS * ANSWER, padded)
    return shape_of(model.base_llm_model.config), proj, batch
