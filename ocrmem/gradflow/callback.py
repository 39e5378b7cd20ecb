"""Watch a Hugging Face Trainer run: check its first batch, then the trained part's gradient at every step.

trainer = Trainer(..., callbacks=[GradientFlowCallback("proj")])
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ocrmem.gradflow.catalogue import Place, finding
from ocrmem.gradflow.check import GradientFlowError, check
from ocrmem.gradflow.parts import Trainable, parts_of, unwrapped
from ocrmem.gradflow.report import Report


class GradientFlowCallback(TrainerCallback):
    """Stop a run that trains nothing.

    Args:
        trainable: what is to be trained, as `gradflow.check` takes it.
        patience: optimizer steps in a row with a gradient of exactly zero after which the run is stopped;
            single batches without memory are healthy.

    Attributes:
        report: of the first batch, once it has run.
        norms: the gradient norm of all that is to be trained at each optimizer step, before clipping.

    Raises (during training):
        GradientFlowError: the first batch is faulty, or a later gradient is not finite or stays zero.
        TypeError: the model is not called with keyword arguments, so the batch cannot be checked.
    """

    def __init__(self, trainable: Trainable = "proj", *, patience: int = 20) -> None:
        self._trainable = trainable
        self._patience = patience
        self._zeros = 0
        self._hook: Any = None
        self.report: Report | None = None
        self.norms: list[float] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        inner = unwrapped(kwargs["model"])
        # A hook sees the very batch that is trained on; asking the loader for one would move its sampler.
        self._hook = inner.register_forward_pre_hook(self._check_first_batch, with_kwargs=True)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        inner = unwrapped(kwargs["model"])
        parts = parts_of(inner, self._trainable)
        path = ", ".join(part.label for part in parts)
        names = [name for part in parts for name in part.parameters]
        gradients = [g for name in names if (g := inner.get_parameter(name).grad) is not None]
        norm = float(torch.stack([g.detach().float().norm() for g in gradients]).norm()) if gradients else 0.0
        self.norms.append(norm)
        self._zeros = self._zeros + 1 if norm == 0.0 else 0
        if not math.isfinite(norm):
            remedy = "Check this step's samples, or lower the learning rate."
            raise _at_step(state, "GF018", path, f"the gradient norm of {path} is {norm}", remedy)
        if self._zeros >= self._patience:
            raise _at_step(state, "GF017", path, f"{path} has had no gradient for {self._zeros} optimizer steps")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._hook is not None:
            self._hook.remove()

    def _check_first_batch(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._hook.remove()
        if args or not kwargs:
            raise TypeError("the batch cannot be checked: give the model's forward keyword arguments")
        self.report = check(model, kwargs, self._trainable)
        if not self.report.ok:
            raise GradientFlowError(self.report.errors)


def _at_step(state: TrainerState, code: str, path: str, evidence: str, remedy: str | None = None) -> GradientFlowError:
    return GradientFlowError([finding(code, path, Place(path, f"step {state.global_step + 1}"), evidence, remedy)])
