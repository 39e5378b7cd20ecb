"""Collectives of a training's processes, and an orderly end of their group.

All processes call each function at the same point; with one process, or outside a process group, it returns at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
# Leaving the group after an error: a peer that hangs must not hold up this process.
_LEAVE_SECONDS = 10.0


def are_several() -> bool:
    """Return whether there are other processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return this process's number among all, from 0."""
    return dist.get_rank() if are_several() else 0


def all_max(values: Sequence[int], device: torch.device) -> list[int]:
    """Return the maximum over all processes of each of a few numbers."""
    if not are_several():
        return list(values)
    numbers = torch.tensor(values, dtype=torch.int64, device=device)
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return [int(number) for number in numbers.tolist()]


def any_process(device: torch.device, value: bool) -> bool:
    """Return whether a process gives True."""
    return bool(all_max([int(value)], device)[0])


def gather(value: T) -> list[T]:
    """Return the value of every process, by rank; torch pickles values on the way."""
    if not are_several():
        return [value]
    gathered: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered  # type: ignore[return-value]


def broadcast(value: T) -> T:
    """Return the first process's value."""
    if not are_several():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def process_group() -> Iterator[None]:
    """Leave the process group that the block sets up, however the block ends.

    A group that was there before is left alone. Processes that exit while in a group abort now and then. After an error
    the others may be gone or wait for something else, and leaving could wait for them: it gets a few seconds, no more.
    """
    if dist.is_available() and dist.is_initialized():
        yield
        return
    try:
        yield
    except BaseException:
        leaving = threading.Thread(target=_leave, daemon=True)
        leaving.start()
        leaving.join(_LEAVE_SECONDS)
        raise
    _leave()


def _leave() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
