"""The order of training samples: shuffled epochs, on request with short memory first, or like lengths together.

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

WINDOW = 100  # batches of like length that are sorted together


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
            pool, seed = self.pool_size(step), mixed_seed(self.seed, step)
            places: list[int] = []
            while len(places) < self.batch:  # further shuffles where the pool is smaller than a batch
                places += shuffled(pool, mixed_seed(seed, len(places)))[: self.batch - len(places)].tolist()
            return self.order[places].tolist()
        first = (step - self.growing_steps) * self.batch
        indices = []
        for position in range(first, first + self.batch):
            epoch, place = divmod(position, len(self.order))
            if self._epoch_order[0] != epoch:
                self._epoch_order = (epoch, self.epoch_order(epoch))
            indices.append(int(self._epoch_order[1][place]))
        return indices

    def epoch_order(self, epoch: int) -> np.ndarray:
        """Return the samples of an epoch (counted from 0), each once: int64 [n]."""
        return shuffled(len(self.order), mixed_seed(self.seed, -1 - epoch))


class GroupedSampler(RunSampler):
    """`RunSampler` with batches of like length.

    An epoch's shuffled order is cut into windows of ``WINDOW`` batches. Each window is sorted by length and cut into
    batches, which come in shuffled order. The batch that two epochs share takes the shortest samples of both.
    Within a step samples come sorted, so the parts that processes and accumulation steps take of it are of like
    length too. While a curriculum grows that is all, since the curriculum says which samples a step may draw.

    Args:
        sequence_lengths: a sample's tokens in the sequence, by which it is grouped.
        args, kwargs: lengths, batch, max_steps, share and seed, as `RunSampler` takes them.
    """

    def __init__(self, sequence_lengths: Sequence[int] | np.ndarray, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sequence_lengths = sequence_lengths

    def step_indices(self, step: int) -> list[int]:
        """Return the samples of one optimizer step (counted from 0), ``batch`` of them, shortest first."""
        return self._sorted(super().step_indices(step))

    def epoch_order(self, epoch: int) -> np.ndarray:
        """Return the samples of an epoch (counted from 0), each once: int64 [n]."""
        order = super().epoch_order(epoch)
        size = len(order)
        # What the last batch of the epoch before still takes, and what is left for the first of the next one.
        head = min(-epoch * size % self.batch, size)
        tail = (size - head) % self.batch
        span = WINDOW * self.batch
        batches: list[list[int]] = []
        for start in range(head, size - tail, span):
            end = min(start + span, size - tail)
            first, last = start == head, end == size - tail
            window = self._sorted(order[0 if first else start : size if last else end])
            # The shortest of the first window close the batch that the epoch before began, those of the last one
            # begin the batch that the next epoch closes.
            opening, window = (window[:head], window[head:]) if first else ([], window)
            closing, window = (window[:tail], window[tail:]) if last else ([], window)
            cut = [window[at : at + self.batch] for at in range(0, len(window), self.batch)]
            places = shuffled(len(cut), mixed_seed(mixed_seed(self.seed, -1 - epoch), start))
            batches += [opening, *(cut[place] for place in places), closing]
        if not batches:  # no whole batch lies in this epoch
            return np.array(self._sorted(order))
        return np.fromiter((index for batch in batches for index in batch), np.int64, size)

    def _sorted(self, indices: Sequence[int] | np.ndarray) -> list[int]:
        return sorted(indices, key=lambda index: (self.sequence_lengths[index], index))


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


def sequence_lengths(dataset: Sequence[Any]) -> Sequence[int] | np.ndarray:
    """Return the tokens of every sample: its attribute or key ``sequence_tokens``, or the length of its ``input_ids``.

    Raises:
        TrainingError: a sample has none of them.
    """
    if isinstance(dataset, StoredSamples):
        return dataset.column("sequence_tokens")
    lengths = []
    for index, sample in enumerate(dataset):
        length, ids = sample_field(sample, "sequence_tokens"), sample_field(sample, "input_ids")
        if length is None and ids is None:
            raise TrainingError.of(
                f"train_dataset[{index}]",
                "has neither sequence_tokens nor input_ids, by which samples are grouped by length",
                "Give every sample one of them, or leave train_sampling_strategy at random (train.group_by_length)",
            )
        lengths.append(len(ids) if length is None else int(length))
    return lengths


def sample_field(sample: Any, name: str) -> Any:
    """Return a sample's key or attribute; None where it has neither."""
    return sample.get(name) if isinstance(sample, Mapping) else getattr(sample, name, None)


def shuffled(size: int, seed: int) -> np.ndarray:
    """Return the numbers below ``size`` in an order that is a function of the seed: int64 [size]."""
    order: np.ndarray = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).numpy()
    return order


def mixed_seed(seed: int, number: int) -> int:
    """Return a seed of 63 bits from two numbers, so that neighbouring steps and seeds share no order.

    This is the finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    """
    mask = (1 << 64) - 1
    z = (seed * 0x9E3779B97F4A7C15 + number * 0xD1B54A32D192ED03 + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 1
