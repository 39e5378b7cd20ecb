"""The loss of supervised positions, without the logits of all of them in memory at once."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import nn

from ocrmem.facts import LOGITS_AT_ONCE


def is_plain(head: nn.Module) -> TypeGuard[nn.Linear]:
    """Return whether a head is a frozen matrix in one piece, as `loss_in_parts` wants it.

    Under ZeRO-3 (``ds_id``) it is not: DeepSpeed gathers it for a call of the module, and in bfloat16 two processes
    came apart where the loss was computed within that call.
    """
    frozen = not any(parameter.requires_grad or hasattr(parameter, "ds_id") for parameter in head.parameters())
    return type(head) is nn.Linear and frozen


def loss_in_parts(
    head: nn.Linear, hidden_ND: torch.Tensor, targets_N: torch.Tensor, items: torch.Tensor
) -> torch.Tensor:
    """Return the summed cross entropy of a frozen head's logits over ``items``, in float32.

    A position has as many logits as the vocabulary has words. So they are made of `ocrmem.facts.LOGITS_AT_ONCE`
    positions at a time, and their gradient with them, since nothing else will need them: the mathematics of torch's own
    linear_cross_entropy, which sums a bfloat16 loss in bfloat16.

    Args:
        head: the language model's, `is_plain`.
        hidden_ND: what stands in front of it [N, H].
        targets_N: long [N].
        items: a scalar, of which the gradient's rounding to the head's dtype sees the mantissa alone. That rounds as
            autograd does, and float16 loses nothing of the gradient before a gradient scaler enlarges it.
    """
    return LossInParts.apply(hidden_ND, targets_N, items, head.weight, head.bias)  # type: ignore[no-any-return]


class LossInParts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        targets_N: torch.Tensor,
        items: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        mantissa = torch.frexp(items.float()).mantissa  # of items, 0.5 to 1
        gradient = torch.empty_like(hidden_ND) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden_ND), LOGITS_AT_ONCE):
            part = slice(start, start + LOGITS_AT_ONCE)
            right = targets_N[part].unsqueeze(1)
            logits = F.linear(hidden_ND[part], weight, bias).float()
            scale = logits.logsumexp(dim=1, keepdim=True)
            total += (scale - logits.gather(1, right)).sum()
            if gradient is not None:
                error = logits.sub_(scale).exp_()  # the probabilities, less 1 for the right word
                error.scatter_add_(1, right, error.new_full(right.shape, -1.0))
                gradient[part] = error.mul_(1 / mantissa).to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        ctx.power = items / mantissa
        return total / items

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (of_loss,), (gradient,) = gradients, ctx.saved_tensors
        return (gradient.float() * (of_loss / ctx.power)).to(gradient.dtype), None, None, None, None
