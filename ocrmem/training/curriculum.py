"""The order of training samples: shuffled epochs, or short memory first.

Both samplers are functions of a seed and a position alone, so a resumed run goes on in the very order of
the uninterrupted one, and every process of a distributed run sees the same global order and takes its part.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

from ocrmem.errors import TrainingError


class EpochSampler(Sampler[int]):
    """Every sample once an epoch, in an order drawn from ``seed + epoch``.

    The order is that of Hugging Face's default sampler (accelerate's SeedableRandomSampler). It is repeated
    here because a distributed run that resumes in a later epoch cannot reach that one through its wrappers.

    Args:
        size: number of samples.
        seed: the data seed.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        yield from _shuffled(self.size, self.seed + self.epoch)


class CurriculumSampler(Sampler[int]):
    """One pass over a whole run: at each step a batch from the samples let in so far.

    Over the first ``round(share * max_steps)`` steps the pool is the shortest part of the samples, growing
    by the same number every step; samples as long as the longest one let in are in as well. Batches are drawn
    from it without repeats as far as it reaches. After that come shuffled epochs over all samples.

    Args:
        lengths: a sample's length, in tokens of memory.
        batch: samples an optimizer step takes over all processes and accumulation steps.
        max_steps: optimizer steps of the run.
        share: part of ``max_steps`` over which the pool grows, 0 to 1.
        seed: the data seed.
    """

    def __init__(self, lengths: Sequence[int], batch: int, max_steps: int, share: float, seed: int) -> None:
        self.order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
        self.sorted_lengths = [lengths[index] for index in self.order]
        self.batch = batch
        self.max_steps = max_steps
        self.growing_steps = round(share * max_steps)
        self.seed = seed
        self._epoch_order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return self.max_steps * self.batch

    def __iter__(self) -> Iterator[int]:
        for step in range(self.max_steps):
            yield from self.step_indices(step)

    def pool_size(self, step: int) -> int:
        """How many of the shortest samples may be drawn at a step (counted from 0)."""
        size = len(self.order)
        if step >= self.growing_steps:
            return size
        least = math.ceil(size * (step + 1) / self.growing_steps)
        return bisect_right(self.sorted_lengths, self.sorted_lengths[least - 1])

    def step_indices(self, step: int) -> list[int]:
        """The samples of one optimizer step (counted from 0), ``batch`` of them."""
        if step < self.growing_steps:
            pool = self.pool_size(step)
            places = _repeated(pool, self.batch, _mixed(self.seed, step))
            return [self.order[place] for place in places]
        first = (step - self.growing_steps) * self.batch
        return [self._epoch_index(position) for position in range(first, first + self.batch)]

    def _epoch_index(self, position: int) -> int:
        epoch, place = divmod(position, len(self.order))
        if self._epoch_order[0] != epoch:
            self._epoch_order = (epoch, _shuffled(len(self.order), _mixed(self.seed, -1 - epoch)))
        return self._epoch_order[1][place]


def memory_lengths(dataset: Sequence[Any]) -> list[int]:
    """The memory tokens of every sample: its attribute or its key ``memory_tokens``.

    Raises:
        TrainingError: a sample has neither.
    """
    lengths = []
    for index, sample in enumerate(dataset):
        length = sample.get("memory_tokens") if isinstance(sample, Mapping) else getattr(sample, "memory_tokens", None)
        if length is None:
            raise TrainingError.of(
                f"train_dataset[{index}]",
                "has no memory_tokens, by which a curriculum sorts the samples",
                "Give every sample an attribute or a key memory_tokens, or set curriculum=0",
            )
        lengths.append(int(length))
    return lengths


def _shuffled(size: int, seed: int) -> list[int]:
    generator = torch.Generator()
    generator.manual_seed(seed)
    order: list[int] = torch.randperm(size, generator=generator).tolist()
    return order


def _repeated(pool: int, count: int, seed: int) -> list[int]:
    """``count`` places below ``pool``: a shuffle, and further shuffles where the pool is the smaller one."""
    places: list[int] = []
    while len(places) < count:
        places += _shuffled(pool, _mixed(seed, len(places)))
    return places[:count]


def _mixed(seed: int, number: int) -> int:
    """A seed of 63 bits from two numbers, so that neighbouring steps and seeds share no order.

    The finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    """
    mask = (1 << 64) - 1
    z = (seed * 0x9E3779B97F4A7C15 + number * 0xD1B54A32D192ED03 + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 1
