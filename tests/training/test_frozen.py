"""The proof by hash that proj moved and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ocrmem.errors import TrainingError
from ocrmem.training.frozen import (
    hash_model,
    require_only_proj_moved,
    require_only_proj_trainable,
    tensor_hash,
)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("statistics", torch.zeros(4))
        self.register_buffer("hidden", torch.zeros(4), persistent=False)
        self.proj = nn.Linear(4, 4)
        self.projector_of_another_name = nn.Linear(2, 2).requires_grad_(False)


def moved(model: Model) -> None:
    with torch.no_grad():
        model.proj.weight += 1


@pytest.mark.parametrize(
    "name", ["base.weight", "base.bias", "statistics", "hidden", "projector_of_another_name.weight"]
)
def test_any_frozen_tensor_that_changes_is_named(name: str) -> None:
    model = Model()
    before = hash_model(model)
    moved(model)
    tensor = dict([*model.named_parameters(), *model.named_buffers()])[name]
    with torch.no_grad():
        tensor.view(-1)[0] += 1e-6
    with pytest.raises(TrainingError, match=f"1 frozen tensors changed during training: {name}"):
        require_only_proj_moved(before, hash_model(model))


def test_proj_that_stays_is_refused() -> None:
    model = Model()
    with pytest.raises(TrainingError, match=r"model.proj: is the same.*ocrmem smoke"):
        require_only_proj_moved(hash_model(model), hash_model(model))


def test_proj_alone_may_move() -> None:
    model = Model()
    before = hash_model(model)
    moved(model)
    after = hash_model(model)
    require_only_proj_moved(before, after)
    assert before.frozen_hash == after.frozen_hash
    assert before.proj_hash != after.proj_hash


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_hash_sees_dtype_shape_and_bytes_but_not_layout(dtype: torch.dtype) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    assert tensor_hash(tensor) == tensor_hash(tensor.t().contiguous().t())
    assert tensor_hash(tensor) != tensor_hash(tensor.reshape(3, 2))
    assert tensor_hash(torch.zeros(2)) != tensor_hash(torch.zeros(2, dtype=torch.int32))
    assert tensor_hash(torch.zeros(())) == tensor_hash(torch.tensor(0.0))


def test_hash_covers_tensors_longer_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocrmem.training.frozen._CHUNK", 4)
    tensor = torch.zeros(11)
    whole = tensor_hash(tensor)
    tensor[10] = 1
    assert tensor_hash(tensor) != whole


def test_model_is_refused_when_more_or_less_than_proj_is_trainable() -> None:
    model = Model()
    require_only_proj_trainable(model)
    model.base.weight.requires_grad_(True)
    with pytest.raises(TrainingError, match=r"base.weight.*only proj"):
        require_only_proj_trainable(model)
    model.base.weight.requires_grad_(False)
    model.proj.bias.requires_grad_(False)
    with pytest.raises(TrainingError, match=r"proj.bias.*frozen"):
        require_only_proj_trainable(model)
    with pytest.raises(TrainingError, match="no parameters under the name proj"):
        require_only_proj_trainable(nn.Linear(2, 2))
