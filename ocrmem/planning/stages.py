"""What each stage of a run takes, and the run that has it alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ocrmem.config import RunConfig
from ocrmem.planning.activations import Projection
from ocrmem.planning.flops import Flops, flops
from ocrmem.planning.memory_need import ModelFacts
from ocrmem.planning.workload import ALIGN, DISTIL, Workload, workload


@dataclass(frozen=True)
class Part:
    """The steps of a stage that have one objective.

    Attributes:
        number: of the stage, from 1.
        config: a run of these steps alone.
        again: operations of a batch's teacher, for each step; 0 but for `distil`.
    """

    number: int
    objective: str
    config: RunConfig
    load: Workload
    work: Flops
    again: float

    @property
    def runs_language_model(self) -> bool:
        return self.objective != ALIGN


def parts(config: RunConfig, facts: ModelFacts, answer_tokens: int | None) -> list[Part]:
    """Return a part for every objective of every stage."""
    found = []
    for number, stage in enumerate(config.train.resolved_stages(), 1):
        for name, count in stage.mix.items():
            steps = round(stage.steps * count / sum(stage.mix.values()))
            alone: dict[str, Any] = {"stages": (), "max_steps": max(steps, 1)}
            alone["per_device_batch_size"] = stage.per_device_batch_size
            own = config.model_copy(update={"train": config.train.model_copy(update=alone)})
            load = workload(own, answer_tokens, name)
            checkpointing = config.train.activation_checkpointing
            work = flops(facts.shape, facts.proj, load.mean, checkpointing=checkpointing, lora=facts.lora)
            found.append(Part(number, name, own, load, work, _teacher(own, facts) if name == DISTIL else 0.0))
    return found


def _teacher(config: RunConfig, facts: ModelFacts) -> float:
    """Return the forward operations of a batch whose history is text, as if none of its samples came up twice."""
    proj = Projection(0, 0, norm=False)
    read = workload(config, objective="transcribe").mean  # as long as the text, with the memory on top: an upper bound
    work = flops(facts.shape, proj, read, checkpointing=False)
    return work.layers_forward + work.attention_forward
