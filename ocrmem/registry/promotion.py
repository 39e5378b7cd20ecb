"""Whether the alias moves to a version whose gate is met: by default only to a better one than it means already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ocrmem.config.schema import RegisterSection
from ocrmem.evaluation.gate import GateLine
from ocrmem.registry.backend import LORA_TAG, Version

# `dvc exp run` sets both for the stages of an experiment, and `dvc repro` neither.
_DVC_EXPERIMENT = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")


@dataclass(frozen=True)
class Promotion:
    """The decision, and its reason for a person; none where the alias was free."""

    moves: bool
    reason: str


def figure_tag(line: GateLine) -> str:
    """Return the tag of a version that holds a figure of the gate."""
    return f"ocrmem.{line.metric.replace(' - ', '-')}"


def figure_text(line: GateLine) -> str:
    """Return a figure as a tag holds it."""
    return f"{line.value:.6g}"


def promotion(
    section: RegisterSection, version: Version, gate: Sequence[GateLine], holder: Version | None
) -> Promotion:
    """Decide about a version whose gate is met.

    Args:
        gate: the version's figures.
        holder: the version that the alias means now; None: none.
    """
    if holder is not None and holder.number == version.number:
        return Promotion(False, "has it already")
    if section.promote == "never":
        return Promotion(False, "register.promote is never")
    if experiment := next(filter(None, map(os.environ.get, _DVC_EXPERIMENT)), None):
        return Promotion(False, f"this is the DVC experiment {experiment}; `dvc repro` moves it")
    if holder is None:
        return Promotion(True, "")
    if section.promote == "passed":
        return Promotion(True, f"it meant version {holder.number}, and register.promote is passed")
    if LORA_TAG in version.tags and LORA_TAG not in holder.tags:
        reason = f"it changes the base model, and version {holder.number} does not"
        return Promotion(False, f"{reason}; register.promote=passed moves it anyway")
    compared_by = {"recall": ("min_recall", "min_said"), "loss_gain": ("min_loss_gain",)}[section.better_by]
    line = next(line for line in gate if line.setting in compared_by)
    held = holder.tags.get(figure_tag(line))
    try:
        better = float(figure_text(line)) > float(held or "")
    except ValueError:
        reason = f"version {holder.number} says nothing of its {line.metric}; register.promote=passed moves it anyway"
        return Promotion(False, reason)
    compared = f"{line.metric} = {figure_text(line)}, and {held} of version {holder.number}"
    return Promotion(better, compared if better else f"{compared}; register.promote=passed moves it anyway")
