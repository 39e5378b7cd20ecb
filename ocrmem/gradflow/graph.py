"""Walk autograd's graph back from the loss."""

from __future__ import annotations

import torch


def reachable_parameters(loss: torch.Tensor) -> set[int]:
    """``id`` of every leaf tensor into which backward from ``loss`` would accumulate a gradient.

    What a re-entrant activation checkpoint ran is not part of the graph; its parameters are not found here.
    """
    if loss.grad_fn is None:
        return {id(loss)} if loss.requires_grad else set()
    leaves: set[int] = set()
    waiting, seen = [loss.grad_fn], {loss.grad_fn}
    while waiting:
        node = waiting.pop()
        variable = getattr(node, "variable", None)
        if variable is not None:
            leaves.add(id(variable))
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return leaves
