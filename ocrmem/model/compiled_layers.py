"""Attention, MLP and norms of the language model's layers, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from ocrmem.environment import keep_compiled, missing_to_compile
from ocrmem.errors import ConfigError


def compile_layers(base: PreTrainedModel, *, on_gpu: bool, backend: str | Callable[..., Any] = "inductor") -> None:
    """Let torch compile the parts of every layer, once for all of a kind and for rows of any length.

    Weights and their names stay as they are. What cannot be traced, attention within the samples of a packed row, runs
    between the compiled pieces. ``model.generate`` uses the compiled layers too.

    Args:
        on_gpu: where the model runs.
        backend: of torch.compile.

    Raises:
        ConfigError: what torch needs for it is not here.
    """
    if missing := missing_to_compile(on_gpu=on_gpu):
        remedy = "Install a compiler and Python's headers (on a GPU also Triton), or set it to false"
        raise ConfigError.of("train.compile_layers", f"is true, but {missing}", remedy)
    keep_compiled()
    for module in base.modules():
        if isinstance(module, GradientCheckpointingLayer):
            # A layer's own forward has activation checkpointing around it, which torch would trace as well, and in
            # packed rows give up with all that is in it.
            for part in module.children():
                part.compile(dynamic=True, backend=backend)
