"""The plan's operations, against torch's own count of a step that is really run."""

from __future__ import annotations

import pytest
from support.planned import described, made_batch, made_model
from torch.utils.flop_counter import FlopCounterMode

from ocrmem.families import Shape
from ocrmem.planning.activations import Lora, Projection
from ocrmem.planning.flops import flops
from ocrmem.planning.workload import BatchShape


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
def test_forward_and_backward_are_those_that_torch_counts(checkpointing, norm):
    model = made_model(norm=norm)
    if checkpointing:
        model.activation_checkpointing_enable()
    batch = made_batch(padded=True)
    with FlopCounterMode(display=False) as counted:
        model(**batch).loss.backward()
    planned = flops(*described(model, padded=True), checkpointing=checkpointing)
    assert planned.executed == counted.get_total_flops()


def test_a_loss_in_parts_costs_what_a_whole_one_does(monkeypatch):
    for place in ("ocrmem.model.supervised_loss", "ocrmem.planning.workload"):
        monkeypatch.setattr(f"{place}.LOGITS_AT_ONCE", 2)
    model, batch = made_model(), made_batch(padded=True)
    with FlopCounterMode(display=False) as counted:
        model(**batch).loss.backward()
    planned = flops(*described(model, padded=True), checkpointing=False)
    assert planned.executed == counted.get_total_flops()


@pytest.mark.parametrize("targets", [("k_proj", "o_proj"), ("up_proj", "down_proj")])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
def test_the_operations_of_lora_are_those_that_torch_counts(checkpointing, targets):
    lora = Lora(3, targets)
    model = made_model(lora=lora)
    if checkpointing:
        model.activation_checkpointing_enable()
    with FlopCounterMode(display=False) as counted:
        model(**made_batch(padded=True)).loss.backward()
    planned = flops(*described(model, padded=True), checkpointing=checkpointing, lora=lora)
    assert planned.executed == counted.get_total_flops()


def test_frozen_layers_cost_twice_their_forward_and_not_three_times():
    shape = Shape(
        layers=36, hidden=4096, heads=32, kv_heads=8, head=128, inner=12288, vocabulary=151936, head_norms=True
    )
    one = BatchShape(1, 1, 0, 0, 0, padded=False)
    planned = flops(shape, Projection(1024, 4096, False), one, checkpointing=False)
    weights = 8_190_735_360 - 2 * 151_936 * 4096 - 36 * (2 * 4096 + 2 * 128) - 4096  # but embeddings, head and norms
    assert planned.model == 4 * weights
