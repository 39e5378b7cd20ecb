"""The loss part by part is the loss, and never holds more logits than one part's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.live_bytes import MostLogits
from torch import nn

from ocrmem.model import supervised_loss
from ocrmem.model.supervised_loss import is_plain, loss_in_parts

WIDTH, VOCABULARY = 8, 50


def frozen_head(dtype: torch.dtype, bias: bool = False) -> nn.Linear:
    return nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=dtype).requires_grad_(False)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("positions", [1, 4, 5, 11])
def test_loss_and_gradient_are_those_of_all_logits_at_once(
    dtype: torch.dtype, positions: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised_loss, "LOGITS_AT_ONCE", 4)
    torch.manual_seed(0)
    head, targets = frozen_head(dtype, bias), torch.randint(VOCABULARY, (positions,))
    hidden = torch.randn(positions, WIDTH, dtype=dtype).requires_grad_()
    whole = F.cross_entropy(head(hidden).float(), targets, reduction="sum")
    (expected,) = torch.autograd.grad(2 * whole / 3, hidden)
    with MostLogits(VOCABULARY) as most:
        loss = loss_in_parts(head, hidden, targets, torch.tensor(3))
        (2 * loss).backward()
    assert most.positions == min(positions, 4)
    torch.testing.assert_close(loss, whole / 3)
    torch.testing.assert_close(hidden.grad, expected)


def test_float16_keeps_the_gradient_of_many_items_for_the_scaler() -> None:
    torch.manual_seed(0)
    head, targets, items = frozen_head(torch.float16), torch.randint(VOCABULARY, (5,)), 1_000_000
    hidden = torch.randn(5, WIDTH, dtype=torch.float16).requires_grad_()
    scale = 65536.0  # what a gradient scaler begins with
    (expected,) = torch.autograd.grad(
        scale * F.cross_entropy(head(hidden).float(), targets, reduction="sum") / items, hidden
    )
    (scale * loss_in_parts(head, hidden, targets, torch.tensor(items))).backward()
    torch.testing.assert_close(hidden.grad, expected)


def test_without_gradients_there_is_the_loss_alone() -> None:
    head, targets = frozen_head(torch.float32), torch.randint(VOCABULARY, (5,))
    hidden = torch.randn(5, WIDTH, requires_grad=True)
    with torch.no_grad():
        loss = loss_in_parts(head, hidden, targets, torch.tensor(5))
    assert not loss.requires_grad
    torch.testing.assert_close(loss, F.cross_entropy(head(hidden), targets).detach())


def test_a_head_that_learns_is_wrapped_or_in_pieces_is_not_plain() -> None:
    head = frozen_head(torch.float32)
    assert is_plain(head)
    assert not is_plain(nn.Sequential(head))
    assert not is_plain(nn.Linear(2, 2))
    head.weight.ds_id = 0  # ZeRO-3 has it in pieces
    assert not is_plain(head)
