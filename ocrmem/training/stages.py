"""The stages of a run: which objective, samples and learning rate each of its optimizer steps has.

All of it is a function of the seed and the step alone, as in `ocrmem.training.curriculum`, so a run that is resumed
inside a stage or between two goes on as if it had not stopped. At the start of a stage the optimizer forgets its
moments: they are those of another loss, of another scale, and its own warm-up is there to build new ones.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from transformers import get_scheduler

from ocrmem.config.schema import Stage, TrainSection
from ocrmem.objectives import Objective
from ocrmem.training.curriculum import GroupedSampler, RunSampler, mixed_seed, shuffled

# Settings of objectives on which their losses depend.
_OF_OBJECTIVES = (
    "transcribe_instruction", "continue_instruction", "distil_top_k", "distil_kl_weight", "distil_nll_weight",
)  # fmt: skip
OBJECTIVE = "objective"  # key of a batch: the name of the objective that made it


class Draw(NamedTuple):
    """A sample, and the objective that it is drawn for."""

    objective: str
    sample: Any

    @property
    def id(self) -> str:
        """Return the sample's."""
        return str(self.sample.id)


@dataclass(frozen=True, eq=False)
class Draws(Dataset[Draw]):
    """Samples by objective and number."""

    samples: Sequence[Any]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[str, int]) -> Draw:
        return Draw(key[0], self.samples[key[1]])


@dataclass(frozen=True, eq=False)
class StageCollator:
    """Has the samples of a batch, which are all drawn for one objective, collated by it."""

    objectives: Mapping[str, Objective]

    def __call__(self, draws: Sequence[Draw]) -> dict[str, Any]:
        name = draws[0].objective
        return {**self.objectives[name]([draw.sample for draw in draws]), OBJECTIVE: name}


class Stages:
    """The resolved stages of a run.

    Args:
        section: ``train`` of a run.
        objectives: those that its stages name, by name.
        memory_lengths: memory tokens of every training sample, by which a curriculum lets them in.

    Attributes:
        stages: the section's, resolved.
        starts: the first step of each, counted from 0.
    """

    def __init__(
        self,
        section: TrainSection,
        objectives: Mapping[str, Objective],
        memory_lengths: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        self.stages = section.resolved_stages()
        self.objectives = objectives
        self.starts = [0, *accumulate(stage.steps for stage in self.stages[:-1])]
        self._section = section
        self._memory_lengths = memory_lengths
        self._orders: dict[tuple[int, str], tuple[np.ndarray, RunSampler]] = {}

    def number(self, step: int) -> int:
        """Return the stage that a step (counted from 0) belongs to, counted from 0."""
        return bisect_right(self.starts, step) - 1

    def _turn(self, step: int) -> tuple[int, str, int]:
        """Return stage and objective of a step, and how many steps of the stage had that objective before it.

        Objectives that are mixed come in rounds, each with as many steps of every objective as the mix says, shuffled.
        """
        number = self.number(step)
        mix = self.stages[number].mix
        places = [name for name, count in mix.items() for _ in range(count)]
        cycle, place = divmod(step - self.starts[number], len(places))
        seed = mixed_seed(mixed_seed(self._section.seed, number), cycle)
        order = [places[index] for index in shuffled(len(places), seed)] if len(mix) > 1 else places
        name = order[place]
        return number, name, cycle * mix[name] + order[:place].count(name)

    def draw(self, step: int, parts: int) -> list[tuple[str, int]]:
        """Return objective and sample of each place in a step's global batch, which has so many parts."""
        number, name, turn = self._turn(step)
        if (number, name) not in self._orders:
            batch = self.stages[number].per_device_batch_size * parts
            self._orders[number, name] = self._order(number, name, batch)
        eligible, order = self._orders[number, name]
        return [(name, int(eligible[place])) for place in order.step_indices(turn)]

    def _order(self, number: int, name: str, batch: int) -> tuple[np.ndarray, RunSampler]:
        """Return the samples that an objective uses, and the order in which a stage draws them."""
        stage, objective, section = self.stages[number], self.objectives[name], self._section
        eligible, mix = objective.eligible(), stage.mix
        turns = stage.steps * mix[name] // sum(mix.values())
        first = number == 0 and name == stage.objective
        seed = section.seed if first else mixed_seed(section.seed, sum(map(ord, name)) + 1000 * number)
        lengths = np.zeros(len(eligible), np.int32)
        if section.curriculum > 0 and self._memory_lengths is not None:
            lengths = np.asarray(self._memory_lengths)[eligible]
        run = (lengths, batch, max(turns, 1), section.curriculum, seed)
        grouped = section.group_by_length
        return eligible, GroupedSampler(objective.lengths()[eligible], *run) if grouped else RunSampler(*run)

    def rate(self, kind: str, peak: float) -> Callable[[int], float]:
        """Return the learning rate of every step, in parts of ``peak``: each stage has a schedule of its own.

        Args:
            kind: of the schedules, as transformers names them.
        """

        def schedule(stage: Stage) -> Callable[[int], float]:
            idle = torch.optim.SGD([torch.zeros(1)])
            made: Any = get_scheduler(kind, idle, num_warmup_steps=stage.warmup_steps, num_training_steps=stage.steps)
            shape: Callable[[int], float] = made.lr_lambdas[0]
            return shape

        schedules = [schedule(stage) for stage in self.stages]
        factors = [stage.learning_rate / peak for stage in self.stages]

        def rate(step: int) -> float:
            number = self.number(step)
            return factors[number] * schedules[number](step - self.starts[number])

        return rate

    def identity(self, parts: int) -> dict[str, Any]:
        """Return what the losses depend on, as plain values; empty where the other settings say all of it.

        Args:
            parts: batches of a step.
        """
        if not self._section.stages:
            return {}
        stages = [stage._asdict() for stage in self.stages]
        for stage in stages:
            stage["global_batch"] = parts * stage.pop("per_device_batch_size")
        return {"stages": stages} | {name: getattr(self._section, name) for name in _OF_OBJECTIVES}


class StageBatches(Sampler[list[tuple[str, int]]]):
    """The batches of one run, one after the other: of each step, accumulation and process.

    Args:
        stages: of the run.
        steps: optimizer steps of the run.
        parts: batches of a step: accumulation steps x processes.
    """

    drop_last = False
    batch_size = None  # it changes from stage to stage

    def __init__(self, stages: Stages, steps: int, parts: int) -> None:
        self.stages, self.steps, self.parts = stages, steps, parts

    def __len__(self) -> int:
        return self.steps * self.parts

    def __iter__(self) -> Iterator[list[tuple[str, int]]]:
        for step in range(self.steps):
            drawn = self.stages.draw(step, self.parts)
            size = len(drawn) // self.parts
            yield from (drawn[at : at + size] for at in range(0, len(drawn), size))
