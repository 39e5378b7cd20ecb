"""Restore a model after a check: gradients, buffers, training flags, requires_grad and random state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ocrmem.gradflow.trace import norm_of

STEP = 0.01  # of a parameter's norm, or of 1 where that is smaller


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Give every parameter no gradient within the block, and restore everything afterwards, also after an error.

    Which buffers the block will change cannot be known, so all are copied: they are small beside the weights.
    """
    parameters = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    training = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=_devices(model)):
        for parameter, *_ in parameters:
            parameter.grad = None
        try:
            yield
        finally:
            for parameter, gradient, flag in parameters:
                parameter.grad = None
                if parameter.requires_grad != flag and parameter.is_leaf:
                    parameter.requires_grad_(flag)
                parameter.grad = gradient
            for module, flag in training:
                module.training = flag
            with torch.no_grad():
                for buffer, before in buffers:
                    if not torch.equal(buffer, before):
                        buffer.copy_(before)


def initialise(model: nn.Module, batch: Mapping[str, Any]) -> None:
    """Run a forward pass that leaves nothing but the modules and parameters that it makes."""
    training = [(module, module.training) for module in model.modules()]
    try:
        with torch.random.fork_rng(devices=_devices(model)), torch.no_grad():
            model.eval()(**batch)
    finally:
        for module, flag in training:
            module.training = flag


@contextmanager
def stepped(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Move parameters a little against their gradients, and clear these; restore the values afterwards."""
    before = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter in parameters:
            assert parameter.grad is not None
            size = max(norm_of(parameter), 1.0) / norm_of(parameter.grad)
            parameter.add_(parameter.grad, alpha=-STEP * size)
            parameter.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


def random_state(model: nn.Module) -> dict[int | None, torch.Tensor]:
    """Return the generators' states, of the CPU (None) and of each GPU that holds a parameter."""
    return {None: torch.get_rng_state()} | {d: torch.cuda.get_rng_state(d) for d in _devices(model)}


def restore_random_state(states: Mapping[int | None, torch.Tensor]) -> None:
    """Set the generators to what `random_state` returned."""
    for device, state in states.items():
        torch.set_rng_state(state) if device is None else torch.cuda.set_rng_state(state, device)


def _devices(model: nn.Module) -> list[int]:
    places = {p.device for p in model.parameters()}
    return sorted({p.index for p in places if p.type == "cuda" and p.index is not None})
