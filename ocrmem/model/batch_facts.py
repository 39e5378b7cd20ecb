"""Describe a MEMModel's batch to the gradient doctor."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ocrmem.gradflow.batch_facts import BatchFacts, rows_differ


def memory_facts(batch: Mapping[str, torch.Tensor], placeholder: int) -> BatchFacts:
    """Count the memory in the keyword arguments of `MEMModel.forward`.

    Args:
        placeholder: id of the token that stands for one vision token.
    """
    facts = BatchFacts()
    if "input_ids" in batch:
        per_sample = (batch["input_ids"] == placeholder).sum(dim=1).tolist()
        facts.memory_tokens = sum(per_sample)
        facts.groups = [count for count in per_sample if count]
        facts.samples_with_memory = len(facts.groups)
    if batch.get("page_kept") is not None:
        facts.groups = batch["page_kept"].sum(dim=1).tolist()
    if batch.get("pixel_values") is not None:
        facts.distinct = rows_differ(batch["pixel_values"])
    return facts
