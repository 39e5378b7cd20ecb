"""The order of training samples: shuffled epochs, with short memory first where a curriculum is asked for.

The order is a function of a seed and a step alone, so a resumed run keeps the very order of the uninterrupted
one, and any number of processes that make up the same global batch take the same samples at each step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from ocrmem.dataset.stored_samples import StoredSamples
from ocrmem.errors import TrainingError


class RunSampler(Sampler[int]):
    """One pass over a whole run: at each step a batch from the samples let in so far.

    Over the first ``round(share * max_steps)`` steps the pool is the shortest part of the samples, growing
    by the same number every step; samples as long as the longest one let in are in as well. Batches are drawn
    from it without repeats as far as it reaches. After that come shuffled epochs over all samples; a batch may
    hold the end of one and the beginning of the next, so that every step has a whole batch, which any number of
    processes can share.

    Args:
        lengths: a sample's length, in tokens of memory.
        batch: samples an optimizer step takes over all processes and accumulation steps.
        max_steps: optimizer steps of the run.
        share: part of ``max_steps`` over which the pool grows, 0 to 1; 0: shuffled epochs from the start.
        seed: the data seed.
    """

    def __init__(
        self, lengths: Sequence[int] | np.ndarray, batch: int, max_steps: int, share: float, seed: int
    ) -> None:
        # Arrays, not lists: of millions of samples they take 12 bytes each instead of 100.
        self.order = np.argsort(np.asarray(lengths), kind="stable")
        self.sorted_lengths = np.asarray(lengths)[self.order]
        self.batch = batch
        self.max_steps = max_steps
        self.growing_steps = round(share * max_steps)
        self.seed = seed
        self._epoch_order: tuple[int, np.ndarray] = (-1, self.order)

    def __len__(self) -> int:
        return self.max_steps * self.batch

    def __iter__(self) -> Iterator[int]:
        for step in range(self.max_steps):
            yield from self.step_indices(step)

    def pool_size(self, step: int) -> int:
        """Return how many of the shortest samples may be drawn at a step (counted from 0)."""
        size = len(self.order)
        if step >= self.growing_steps:
            return size
        least = math.ceil(size * (step + 1) / self.growing_steps)
        return int(np.searchsorted(self.sorted_lengths, self.sorted_lengths[least - 1], side="right"))

    def step_indices(self, step: int) -> list[int]:
        """Return the samples of one optimizer step (counted from 0), ``batch`` of them."""
        if step < self.growing_steps:
            pool = self.pool_size(step)
            places = _repeated(pool, self.batch, mixed_seed(self.seed, step))
            return self.order[places].tolist()
        first = (step - self.growing_steps) * self.batch
        return [self._epoch_index(position) for position in range(first, first + self.batch)]

    def _epoch_index(self, position: int) -> int:
        epoch, place = divmod(position, len(self.order))
        if self._epoch_order[0] != epoch:
            self._epoch_order = (epoch, self.epoch_order(epoch))
        return int(self._epoch_order[1][place])

    def epoch_order(self, epoch: int) -> np.ndarray:
        """Return the samples of an epoch (counted from 0), each once: int64 [n]."""
        return shuffled(len(self.order), mixed_seed(self.seed, -1 - epoch))


def memory_lengths(dataset: Sequence[Any]) -> Sequence[int] | np.ndarray:
    """Return the memory tokens of every sample: its attribute or its key ``memory_tokens``.

    Raises:
        TrainingError: a sample has neither.
    """
    if isinstance(dataset, StoredSamples):
        return dataset.column("memory_tokens")
    lengths = [sample_field(sample, "memory_tokens") for sample in dataset]
    if None in lengths:
        raise TrainingError.of(
            f"train_dataset[{lengths.index(None)}]",
            "has no memory_tokens, by which a curriculum sorts the samples",
            "Give every sample an attribute or a key memory_tokens, or set curriculum=0",
        )
    return lengths


def sample_field(sample: Any, name: str) -> Any:
    """Return a sample's key or attribute; None where it has neither."""
    return sample.get(name) if isinstance(sample, Mapping) else getattr(sample, name, None)


def shuffled(size: int, seed: int) -> np.ndarray:
    """Return the numbers below ``size`` in an order that is a function of the seed: int64 [size]."""
    order: np.ndarray = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).numpy()
    return order


def _repeated(pool: int, count: int, seed: int) -> list[int]:
    """Return ``count`` places below ``pool``: a shuffle, and further shuffles where the pool is the smaller one."""
    places: list[int] = []
    while len(places) < count:
        order = shuffled(pool, mixed_seed(seed, len(places)))
        places += order[: count - len(places)].tolist()
    return places


def mixed_seed(seed: int, number: int) -> int:
    """Return a seed of 63 bits from two numbers, so that neighbouring steps and seeds share no order.

    This is the finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    """
    mask = (1 << 64) - 1
    z = (seed * 0x9E3779B97F4A7C15 + number * 0xD1B54A32D192ED03 + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 1
