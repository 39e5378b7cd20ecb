"""LoRA on the base model: trained low-rank changes of some of its linear layers, for those who accept a changed base.

peft makes the layers. Off by default: proj alone is trained then, and peft is not imported. An adapter's file holds the
weights as ``lora.PATH.lora_A.weight`` [rank, in] and ``lora.PATH.lora_B.weight`` [out, rank], float32 whatever the
base's precision; lora_B begins at zero, so a new LoRA changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from ocrmem.errors import ModelError
from ocrmem.extras import not_installed
from ocrmem.facts import LORA


def add_lora(base: PreTrainedModel, *, rank: int, alpha: float, targets: Sequence[str]) -> None:
    """Put LoRA around linear layers of a language model, in place; all else of it is frozen.

    Args:
        rank: of the change of a layer.
        alpha: the change is scaled by ``alpha / rank``.
        targets: last parts of the layers' names, such as ``q_proj``.

    Raises:
        ConfigError: peft is not installed.
        ModelError: a target names no linear layer of the model, its head excepted; the message lists what there is.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise not_installed("LoRA", "peft") from None
    head = base.get_output_embeddings()
    linear = [name for name, layer in base.named_modules() if isinstance(layer, nn.Linear) and layer is not head]
    there = sorted({name.rpartition(".")[2] for name in linear})
    if unknown := [target for target in targets if target not in there]:
        raise ModelError.of(
            "train.lora.targets",
            f"{', '.join(unknown)}: the language model has no linear layers of that name",
            f"Use some of {', '.join(there)}" if there else "Leave train.lora out: it has no linear layers at all",
        )
    # peft says that alpha is an int, and divides by the rank.
    settings = LoraConfig(r=rank, lora_alpha=cast(int, alpha), target_modules=list(targets))
    inject_adapter_in_model(settings, base)
    for weight in lora_weights(base).values():
        weight.data = weight.data.float()  # peft gives them the precision of the layer


def lora_weights(base: nn.Module) -> dict[str, nn.Parameter]:
    """Return the LoRA weights of a language model by their names in an adapter's file; none where it has no LoRA."""
    return {
        f"{LORA}.{path}.{kind}.weight": matrix.weight
        for path, layer in _layers(base)
        for kind in ("lora_A", "lora_B")
        for matrix in getattr(layer, kind).values()
    }


@contextmanager
def without_lora(model: nn.Module) -> Iterator[None]:
    """Switch a model's LoRA off for a while: its base is the one that was loaded."""
    layers = [layer for _, layer in _layers(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def idle(base: nn.Module) -> torch.Tensor | float:
    """Return 0, with all LoRA weights in its graph.

    The matrices run as modules: ZeRO-3 gathers the weights of those alone.
    """
    total: Any = 0.0
    for _, layer in _layers(base):
        for down, up in zip(layer.lora_A.values(), layer.lora_B.values(), strict=True):
            total = total + up(down(down.weight.new_zeros(1, down.in_features))).sum()
    return total * 0.0


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield path and module of the layers that peft has wrapped, in the model's order."""
    return ((path, module) for path, module in model.named_modules() if hasattr(module, "lora_A"))
