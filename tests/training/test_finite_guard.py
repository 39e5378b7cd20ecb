"""A run whose proj gets no gradient although there is memory ends; one that has had no memory yet goes on."""

from __future__ import annotations

import pytest
import torch

from ocrmem.errors import TrainingError
from ocrmem.training.finite_guard import FiniteGuard

CPU = torch.device("cpu")


def step(guard: FiniteGuard, number: int, norm: float, *, has_memory: bool) -> None:
    guard.has_memory |= has_memory
    guard.saw_gradient(norm)
    guard.settle(number, "Mend it", CPU)


def test_many_steps_without_a_gradient_are_too_many_only_with_memory() -> None:
    guard = FiniteGuard()
    for number in range(50):
        step(guard, number, 0.0, has_memory=False)
    for number in range(19):
        step(guard, number, 0.0, has_memory=True)
        step(guard, number, 0.0, has_memory=False)
    step(guard, 19, 0.5, has_memory=True)
    for number in range(19):
        step(guard, number, 0.0, has_memory=True)
    with pytest.raises(TrainingError, match=r"step 99: proj has had a gradient of exactly zero for 20 .*ocrmem smoke"):
        step(guard, 99, 0.0, has_memory=True)
