"""Make batches ahead in worker processes, whose errors arrive as they were raised."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset

from ocrmem.errors import OcrMemError

FAILED = "ocrmem_error"  # key of a batch that could not be made


class CarriedDataset(Dataset[Any]):
    """Samples by index; an error of ours comes as the only item of the batch instead of being raised.

    DataLoader raises a worker's error again by calling its class with a text, which ours do not take.
    """

    def __init__(self, samples: Sequence[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        try:
            several = getattr(self.samples, "__getitems__", None)
            return several(indices) if several else [self.samples[index] for index in indices]
        except OcrMemError as error:
            return [error]


def carry_errors(collator: Callable[[Any], Mapping[str, Any]], samples: Sequence[Any]) -> Mapping[str, Any]:
    """Collate samples of `CarriedDataset`; an error of ours becomes the batch, under `FAILED`."""
    if len(samples) == 1 and isinstance(samples[0], OcrMemError):
        return {FAILED: samples[0]}
    try:
        return collator(samples)
    except OcrMemError as error:
        return {FAILED: error}


def begin_worker(number: int) -> None:
    """Keep signals to the process group from this worker; for DataLoader's ``worker_init_fn``.

    The training process finishes its step, writes a checkpoint and ends its workers; they also end when it is gone.
    """
    if hasattr(os, "setsid"):
        os.setsid()
