"""Restore a model after a check: gradients, buffers, training flags, requires_grad and random state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Give every parameter no gradient within the block, and restore everything afterwards, also after an error.

    Which buffers the block will change cannot be known, so all are copied: they are small beside the weights.
    """
    parameters = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    training = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = sorted({p.device.index for p, *_ in parameters if p.device.type == "cuda" and p.device.index is not None})
    with torch.random.fork_rng(devices=devices):
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
