"""Batches of samples of like length, so that little of a batch is padding.

The order stays that of `RunSampler`, a function of a seed and a step alone, and every epoch still holds every sample
once: only which samples share a batch changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ocrmem.dataset.stored_samples import StoredSamples
from ocrmem.errors import TrainingError
from ocrmem.training.curriculum import RunSampler, mixed_seed, sample_field, shuffled

WINDOW = 100  # batches sorted together


class GroupedSampler(RunSampler):
    """`RunSampler` with batches of like length.

    An epoch's shuffled order is cut into windows of ``WINDOW`` batches. Each window is sorted by length and cut into
    batches, which come in shuffled order. The batch that two epochs share takes the shortest samples of both.
    Within a step samples come sorted, so the parts that processes and accumulation steps take of it are of like
    length too. While a curriculum grows that is all, since the curriculum says which samples a step may draw.

    Args:
        sequence_lengths: a sample's tokens in the sequence, by which it is grouped.
        lengths, batch, max_steps, share, seed: as `RunSampler` takes them.
    """

    def __init__(
        self,
        sequence_lengths: Sequence[int] | np.ndarray,
        lengths: Sequence[int] | np.ndarray,
        batch: int,
        max_steps: int,
        share: float,
        seed: int,
    ) -> None:
        super().__init__(lengths, batch, max_steps, share, seed)
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
