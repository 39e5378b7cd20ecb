"""Stop all processes at a step that is not finite, or when proj has had no gradient for long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ocrmem.errors import TrainingError
from ocrmem.training import collectives
from ocrmem.training.curriculum import sample_field

SAMPLE_IDS = "sample_ids"
_PATIENCE = 20  # steps; a few without one are healthy
_SHOWN = 16  # sample names in one message


def name_samples(collator: Callable[[Any], Mapping[str, Any]], samples: Sequence[Any]) -> dict[str, Any]:
    """Collate samples and put their names into the batch, under ``sample_ids``: their attribute or key ``id``.

    Take it out of the batch before forward sees it.
    """
    names = [sample_field(sample, "id") for sample in samples]
    return {**collator(samples), SAMPLE_IDS: ["(no id)" if name is None else str(name) for name in names]}


class FiniteGuard:
    """Collects what is wrong with a step and stops all processes for it together.

    A process that stopped alone would leave the others waiting, and they, whose gradients are spoilt by then, could
    not say which samples did it.
    """

    def __init__(self) -> None:
        self._samples: list[str] = []
        self._losses: list[str] = []
        self.norm: float | None = None  # of a gradient that the optimizer must not step with
        self.has_memory = False  # whether a batch of this step has some here: without, no gradient is healthy
        self._zeros = 0

    def saw(self, loss: torch.Tensor, samples: Sequence[str]) -> None:
        """Note a batch's loss and samples."""
        self._samples += samples
        if not torch.isfinite(loss).all():
            self._losses.append(f"the loss is {loss.item()} for {_listed(samples)}")

    def saw_gradient(self, norm: float) -> None:
        """Note the norm of the step's gradient, which is finite."""
        if norm or self.has_memory:
            self._zeros = 0 if norm else self._zeros + 1
        self.has_memory = False

    def settle(self, step: int, remedy: str, device: torch.device) -> None:
        """End the step: all processes call this before its result is used.

        Raises:
            TrainingError: a loss or the gradient is not finite; names step, process and samples, the same on
                every process. Or the gradient has been exactly zero over many steps with memory.
        """
        samples, losses, norm = self._samples, self._losses, self.norm
        self._samples, self._losses, self.norm = [], [], None
        found_wrong = [int(bool(losses)), int(norm is not None), self._zeros]
        bad_loss, bad_norm, zeros = collectives.all_max(found_wrong, device)
        if zeros >= _PATIENCE:
            raise TrainingError.of(
                f"step {step}",
                f"proj has had a gradient of exactly zero for {zeros} steps with memory: nothing is learnt",
                "Run `ocrmem smoke`, which names the place where the gradient is lost",
            )
        if not (bad_loss or bad_norm):
            return
        if bad_loss:
            found = collectives.gather(losses)
            place = " on process {}" if len(found) > 1 else ""
            message = "; ".join(f"{text}{place.format(rank)}" for rank, texts in enumerate(found) for text in texts)
        else:
            parts = collectives.gather(samples)
            message = f"the gradient norm of proj is {norm} for {_listed([name for part in parts for name in part])}"
        raise TrainingError.of(f"step {step}", message, remedy)


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "samples without names"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"the samples {', '.join(names[:_SHOWN])}{more}"
