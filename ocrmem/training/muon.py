"""Muon on matrices and AdamW on vectors, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from ocrmem.model.trainable import trained_parameters
from ocrmem.training.arguments import AdapterTrainingArguments


class MuonAdamW(Optimizer):
    """Steps matrices by Muon and all else by AdamW, at one learning rate.

    Muon (Jordan et al. 2024) steps along the orthogonalized momentum of a matrix; its rate is matched to the size of
    AdamW's steps (Liu et al. 2025, arXiv:2502.16982). Both are torch's. They are one optimizer here because Trainer,
    its schedule and its checkpoints know one.

    Args:
        parameters: what is trained, each with one dimension or two, float32.
        lr: learning rate of both.
        betas: AdamW's.
        weight_decay: of the matrices; vectors have none.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        matrices: list[nn.Parameter] = []
        vectors: list[nn.Parameter] = []
        for parameter in parameters:
            (matrices if parameter.ndim == 2 else vectors).append(parameter)
        self._parts: list[Optimizer] = []
        if matrices:
            self._parts.append(Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
        if vectors:
            self._parts.append(AdamW(vectors, lr=lr, betas=betas, weight_decay=0.0))
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Do one step of both; return what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Groups and state are this optimizer's: a schedule writes into the one, a checkpoint replaces both.
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state
            part.step()
        return loss


def optimizers_of(model: nn.Module, args: AdapterTrainingArguments) -> tuple[MuonAdamW | None, None]:
    """Return what Trainer takes as ``optimizers``: for "muon" the one here, else none, and Trainer makes its own."""
    if args.optimizer != "muon":
        return None, None
    betas = (args.adam_beta1, args.adam_beta2)
    return MuonAdamW(trained_parameters(model).values(), args.learning_rate, betas, args.weight_decay), None
