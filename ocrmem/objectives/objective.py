"""Objective: the interface between a stage of the training and the batches that it computes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from ocrmem.config import RunConfig
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.schema import Sample
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.dataset.stored_samples import StoredSamples
from ocrmem.encoder.feature_store import FeatureStore
from ocrmem.errors import DataError, OcrMemError
from ocrmem.facts import IGNORED
from ocrmem.gradflow import Report, check
from ocrmem.model.collator import MemoryCollator
from ocrmem.model.trainable import trained_parts

Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Material:
    """What objectives make batches of.

    Attributes:
        config: of the run.
        builder: makes sequences of tokens.
        dataset: where the samples' pages are.
        features: of the pages; None: batches bring the pages themselves, for a model with an encoder.
        samples: for training.
        teacher: directory of the teacher's logits.
        process: number of this process.
        any_process: tells all processes whether one of them was given True.
    """

    config: RunConfig
    builder: SequenceBuilder
    dataset: MemoryDataset
    features: FeatureStore | None
    samples: StoredSamples
    teacher: Path = Path("teacher")
    process: int = 0
    any_process: Callable[[bool], bool] = bool


class Objective:
    """Batches with a supervised text; their loss is what the language model's forward gives.

    Called with samples of `eligible`, it returns the keyword arguments of `MEMModel.forward`. It can be pickled.

    Attributes:
        name: in ``train.stages``.
        needs: what a sample must have, for the message when none has it.

    Raises:
        DataError: no sample is eligible.
    """

    name: ClassVar[str]
    needs: ClassVar[str] = "memory"

    def __init__(self, material: Material) -> None:
        self.material = material
        packing = material.config.train.packing
        self.collator = MemoryCollator(material.builder, material.dataset, material.features, packing=packing)
        if not len(self.eligible()):
            raise self._nothing()

    def eligible(self) -> np.ndarray:
        """Return the numbers of the training samples that it can use: int64 [n], ascending."""
        return np.flatnonzero(self.material.samples.column("memory_tokens") > 0)

    def lengths(self) -> np.ndarray:
        """Return a length for every training sample, by which batches of like length are made: int [samples]."""
        return self.material.samples.column("sequence_tokens")

    def __call__(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """Collate samples."""
        return self.collator(samples)

    def inputs(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the arguments of forward among what a batch holds: all of it, but for what `loss` alone knows."""
        return dict(batch)

    def items(self, batch: Batch) -> int:
        """Return how many items of a batch the loss is a mean over."""
        return int((batch["labels"][:, 1:] != IGNORED).sum())

    def prepare(self, model: nn.Module) -> None:
        """Take from a model, all of whose weights are there, what the loss needs besides its forward."""

    def loss(self, model: nn.Module, batch: Batch, items: Any) -> torch.Tensor:
        """Return the sum over the batch's items, divided by ``items``: those of the whole optimizer step."""
        loss: torch.Tensor = model(**batch, num_items_in_batch=items).loss
        return loss

    def check(self, model: nn.Module, batch: Batch) -> Report:
        """Have the gradient doctor check all that a batch is to train."""
        return check(model, self.inputs(batch), trained_parts(model))

    def _nothing(self) -> OcrMemError:
        return DataError.of(
            f"train.stages: {self.name}",
            f"no training sample has what it needs: {self.needs}",
            "Leave the objective out, or bring longer conversations or a lower model.context_threshold",
        )
