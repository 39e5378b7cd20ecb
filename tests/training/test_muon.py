"""MuonAdamW: each part steps as torch's own optimizer does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.training import logged, standalone_trainer
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ocrmem.training.muon import MuonAdamW

BETAS = (0.9, 0.98)


def gradient(shape: torch.Size, step: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(step))


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


@pytest.mark.parametrize(
    "shapes", [((6, 4), (6,), (3, 6), (3,)), ((6, 4),), ((6,),)], ids=["both", "matrices alone", "vectors alone"]
)
def test_matrices_step_as_with_muon_and_vectors_as_with_adamw(shapes: tuple[tuple[int, ...], ...]) -> None:
    ours, alone = parameters(*shapes), parameters(*shapes)
    optimizer = MuonAdamW(ours, 0.1, BETAS, 0.2)
    schedule = LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for step in range(3):
        for parameter in ours:
            parameter.grad = gradient(parameter.shape, step)
        optimizer.step()
        schedule.step()
    for parameter in alone:
        state: dict[str, torch.Tensor] = {}
        for step in range(3):
            rate, parameter.grad = 0.1 / (1 + step), gradient(parameter.shape, step)
            single = (
                torch.optim.Muon([parameter], lr=rate, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
                if parameter.ndim == 2
                else torch.optim.AdamW([parameter], lr=rate, betas=BETAS, weight_decay=0.0)
            )
            single.state[parameter].update(state)
            single.step()
            state = dict(single.state[parameter])
    assert all(torch.equal(one, other) for one, other in zip(ours, alone, strict=True))


def test_a_closure_is_called_with_gradients_and_its_loss_returned() -> None:
    (weight,) = parameters((2, 2))
    optimizer = MuonAdamW([weight], 0.1, BETAS, 0.0)

    def closure() -> torch.Tensor:
        loss = weight.square().sum()
        loss.backward()
        return loss

    before = weight.detach().clone()
    assert optimizer.step(closure) == before.square().sum()
    assert not torch.equal(weight, before)


def test_the_trainer_steps_by_it(tmp_path: Path) -> None:
    trainer = standalone_trainer(tmp_path, max_steps=30, optimizer="muon")
    trainer.train()
    losses = [row[1] for row in logged(trainer)]
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])
    state = trainer.optimizer.optimizer.state
    kept = {name: set(state[value]) for name, value in trainer.model.proj.named_parameters()}
    assert kept["fc1.weight"] == {"momentum_buffer"}
    assert kept["fc1.bias"] == {"step", "exp_avg", "exp_avg_sq"}
