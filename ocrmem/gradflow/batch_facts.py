"""Count what a batch holds: labels that matter, memory, pages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ocrmem.gradflow.trace import tensors_in

IGNORED = -100  # the label that torch's cross entropy leaves out


@dataclass
class BatchFacts:
    """Counts of one batch; None where they are not known."""

    samples: int | None = None  # rows
    supervised_labels: int | None = None  # other than -100
    memory_tokens: int | None = None  # vision tokens placed in the sequences
    samples_with_memory: int | None = None  # rows with at least one of them
    groups: list[int] = field(default_factory=list)  # rows of flat features of each sample or page, in order
    distinct: bool = False  # the samples or pages behind ``groups`` are known to differ
    sequence_length: int | None = None  # columns, padding included
    context_threshold: int | None = None  # of the model's ``config``
    max_seq_length: int | None = None  # of the model's ``config``
    longest_history: int | None = None  # tokens, in all of the data, if the caller knows


def batch_facts(model: nn.Module, batch: Mapping[str, Any]) -> BatchFacts:
    """Count what a batch holds.

    A model with a method ``describe_batch(batch) -> BatchFacts`` says itself what its memory is; labels, lengths and
    limits are read here.
    """
    describe: Any = getattr(model, "describe_batch", None)
    facts: BatchFacts = describe(batch) if describe is not None else BatchFacts()
    config = getattr(model, "config", None)
    facts.context_threshold = getattr(config, "context_threshold", None)
    facts.max_seq_length = getattr(config, "max_seq_length", None)
    labels, ids = batch.get("labels"), batch.get("input_ids")
    if isinstance(labels, torch.Tensor):
        facts.samples = len(labels) if labels.dim() else None
        facts.sequence_length = labels.shape[1] if labels.dim() == 2 else None
        if not labels.is_floating_point():
            facts.supervised_labels = int((labels != IGNORED).sum())
    if isinstance(ids, torch.Tensor) and ids.dim() == 2:
        facts.samples, facts.sequence_length = ids.shape
    return facts


def inputs_differ(batch: Mapping[str, Any]) -> bool:
    """Return whether some floating tensor of the batch differs from row to row."""
    return any(t.is_floating_point() and t.dim() >= 2 and rows_differ(t) for t in tensors_in(dict(batch)))


def rows_differ(values: torch.Tensor) -> bool:
    """Return whether any row of the first dimension differs from the first row."""
    return bool((values[1:] != values[:1]).any())


def page_dependence(values: torch.Tensor, facts: BatchFacts) -> float | None:
    """Measure how much features depend on their page: 0 when every page has the same ones.

    ``[P, n, d]`` features are compared position by position. Flat ``[M, d]`` features are split into
    ``facts.groups``; as blank tokens may be left out of them, each row of a group is compared with its nearest
    row of the largest group, and the median counts.

    Returns:
        The difference relative to the features' mean size; None where it cannot be known.
    """
    values = values.detach().float()
    scale = float(values.abs().mean()) or 1.0
    if not math.isfinite(scale):
        return None
    if values.dim() >= 3 and len(values) > 1:
        return float((values[1:] - values[:1]).abs().mean()) / scale
    if values.dim() != 2 or len(facts.groups) < 2 or sum(facts.groups) != len(values):
        return None
    if not facts.distinct and len(set(facts.groups)) == 1:
        return None
    *others, largest = sorted(torch.split(values, facts.groups), key=len)
    nearest = [torch.cdist(other, largest).min(dim=1).values for other in others]
    return float(torch.cat(nearest).median()) / (scale * values.shape[1] ** 0.5)
