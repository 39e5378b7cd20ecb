"""Watch a Hugging Face Trainer run: check its first batch, watch proj's gradient, stop a run that trains nothing.

trainer = Trainer(..., callbacks=[GradientFlowCallback("proj")])
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ocrmem.errors import CheckFailed, Problem
from ocrmem.gradflow.check import as_problem, check, resolved, unwrapped
from ocrmem.gradflow.report import Report


class GradientFlowCallback(TrainerCallback):
    """Check step 1 on its real batch and watch the trained part's gradient afterwards.

    Args:
        trainable: path of the module that ought to train.
        patience: optimizer steps in a row with a gradient of exactly zero after which the run is stopped;
            single batches without memory are healthy.

    Attributes:
        report: of the first batch, once it has run.
        norms: the trained part's gradient norm at each optimizer step, before clipping.

    Raises (during training):
        CheckFailed: with the finding as its message.
    """

    def __init__(self, trainable: str = "proj", *, patience: int = 20) -> None:
        self._trainable = trainable
        self._patience = patience
        self._zeros = 0
        self._handle: Any = None
        self.report: Report | None = None
        self.norms: list[float] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        inner = unwrapped(kwargs["model"])
        # A hook sees the very batch that is trained on; asking the loader for one would move its sampler.
        self._handle = inner.register_forward_pre_hook(self._check_first_batch, with_kwargs=True)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        inner = unwrapped(kwargs["model"])
        path = resolved(inner, self._trainable)
        gradients = [p.grad for p in inner.get_submodule(path).parameters() if p.grad is not None]
        norm = float(torch.stack([g.detach().float().norm() for g in gradients]).norm()) if gradients else 0.0
        self.norms.append(norm)
        step = state.global_step + 1
        if not math.isfinite(norm):
            raise CheckFailed.of(
                f"step {step}",
                f"GF018 the gradient of {path} is not finite",
                "Lower train.learning_rate, or use bfloat16",
            )
        self._zeros = self._zeros + 1 if norm == 0.0 else 0
        if self._zeros >= self._patience:
            raise CheckFailed.of(
                f"step {step}",
                f"GF017 {path} has had no gradient for {self._zeros} optimizer steps",
                "Run `ocrmem smoke` to see where the chain is cut",
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._remove_hook()

    def _check_first_batch(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._remove_hook()
        if args or not kwargs:
            raise CheckFailed(
                Problem(
                    "step 1",
                    "the batch is not passed by keyword, so it cannot be checked",
                    "Give forward keyword arguments",
                )
            )
        self.report = check(model, kwargs, self._trainable)
        errors = [finding for finding in self.report.findings if finding.severity == "error"]
        if errors:
            raise CheckFailed([as_problem(finding) for finding in errors])

    def _remove_hook(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
