"""Prove by hashes that training moved proj, and LoRA where a model has it, and nothing else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from ocrmem.errors import ModelError, TrainingError
from ocrmem.facts import PROJ
from ocrmem.files import sha256_json
from ocrmem.model.trainable import check_trainable, lora_of
from ocrmem.training import collectives
from ocrmem.training.zero3 import gathered, is_partitioned

_CHUNK = 1 << 24
_INSIDE_LORA = ".base_layer"  # where peft puts the layer that it wraps


@dataclass(frozen=True)
class ModelHashes:
    """The sha256 of every tensor of a model at one moment.

    Attributes:
        frozen: name to hash of all parameters and buffers that are not trained; a layer inside LoRA has the name that
            it has without, so that the hashes are those of the model without LoRA.
        proj: the same of proj.
        lora: the same of LoRA, by the names of an adapter's file; empty without.
    """

    frozen: dict[str, str]
    proj: dict[str, str]
    lora: dict[str, str]

    @property
    def frozen_hash(self) -> str:
        """Return one sha256 over names and hashes of all that is frozen."""
        return sha256_json(self.frozen)

    @property
    def proj_hash(self) -> str:
        """Return one sha256 over names and hashes of proj's tensors."""
        return sha256_json(self.proj)

    @property
    def lora_hash(self) -> str:
        """Return one sha256 over names and hashes of LoRA's tensors."""
        return sha256_json(self.lora)


def hash_model(model: nn.Module) -> ModelHashes:
    """Hash all parameters and buffers: dtype, shape and bytes. Reads 1-2 GB/s a core, on a few cores.

    A model that ZeRO-3 has partitioned has the hashes of the same model in one piece: all processes call this
    together, gather one parameter at a time, and take turns at hashing.
    """
    lora = lora_of(model)
    names = {id(weight): name for name, weight in lora.items()}
    parameters = {names.get(id(p), name.replace(_INSIDE_LORA, "")): p for name, p in model.named_parameters()}
    named = {**parameters, **dict(model.named_buffers())}
    partitioned = {name: tensor for name, tensor in named.items() if is_partitioned(tensor)}
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        others = [name for name in named if name not in partitioned]
        hashes = dict(zip(others, pool.map(tensor_hash, (named[name] for name in others)), strict=True))
    mine: dict[str, str] = {}
    turns = len(collectives.gather(None))
    for number, (name, tensor) in enumerate(partitioned.items()):
        with gathered([tensor]):
            if number % turns == collectives.rank():
                mine[name] = tensor_hash(tensor)
    for part in collectives.gather(mine):
        hashes |= part
    hashes = dict(sorted(hashes.items()))
    proj = {name: hashes.pop(name) for name in list(hashes) if in_proj(name)}
    return ModelHashes(proj=proj, lora={name: hashes.pop(name) for name in sorted(lora)}, frozen=hashes)


def tensor_hash(tensor: torch.Tensor) -> str:
    """Return the hex sha256 over a tensor's dtype, shape and bytes, on any device."""
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)} ".encode())
    flat = tensor.detach().reshape(-1)
    for start in range(0, flat.numel(), _CHUNK):
        piece = flat[start : start + _CHUNK].contiguous().cpu()
        digest.update(piece.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def in_proj(name: str) -> bool:
    return name.split(".")[0] == PROJ


def require_only_proj_trainable(model: nn.Module) -> None:
    """Refuse a model in which anything but proj (and LoRA, where it has it) would be trained, or proj would not.

    Raises:
        TrainingError: names what stands in the way.
    """
    if not any(in_proj(name) for name, _ in model.named_parameters()):
        raise TrainingError.of("model", "has no parameters under the name proj", "Train a MEMModel, or name yours so")
    try:
        check_trainable(model)
    except ModelError as error:
        raise TrainingError(error.problems) from None


def require_same_frozen(found: ModelHashes) -> None:
    """Check that all processes hold the same frozen weights, which are not sent from one to the others.

    Raises:
        TrainingError: names the processes that differ from the first.
    """
    hashes = collectives.gather(found.frozen_hash)
    others = [str(rank) for rank, value in enumerate(hashes) if value != hashes[0]]
    if others:
        raise TrainingError.of(
            "model",
            f"the frozen weights of process {', '.join(others)} are not those of process 0",
            "Give all nodes the same model files; compare model.base_revision and the files' hashes",
        )


def require_only_proj_moved(before: ModelHashes, after: ModelHashes, *, stopped: bool = False) -> None:
    """Check a training by the hashes taken before and after it.

    Args:
        stopped: it ended early; the first step of a warm-up has the rate 0, so proj may be as it was.

    Raises:
        TrainingError: a frozen tensor changed, or proj or LoRA did not.
    """
    names = sorted(set(before.frozen) | set(after.frozen))
    changed = [name for name in names if before.frozen.get(name) != after.frozen.get(name)]
    if changed:
        raise TrainingError.of(
            "model",
            f"{len(changed)} frozen tensors changed during training: {', '.join(changed[:5])}",
            "Look for code that writes to the frozen parts in place; the adapter was not written",
        )
    for name, was, now in (("proj", before.proj, after.proj), ("lora", before.lora, after.lora)):
        if was and was == now and not stopped:
            raise TrainingError.of(
                f"model.{name}",
                "is the same after training as before",
                "Run `ocrmem smoke` to see where the gradient is lost, and check train.learning_rate",
            )


@contextmanager
def config_kept(model: nn.Module) -> Iterator[None]:
    """Undo what Trainer writes into the model's configuration (use_cache, the tokenizer's special tokens).

    It is meant for models that Trainer saves whole; here it would end up in the adapter's config.json.
    """
    config = getattr(model, "config", None)
    before = dict(vars(config)) if config is not None else {}
    try:
        yield
    finally:
        if config is not None:
            vars(config).clear()
            vars(config).update(before)
