"""What the processes of one training tell each other, and how they part.

Every function is called by all processes at the same point; with one process, or outside a process group, each
answers at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
# Leaving the group after an error: a peer that hangs must not keep this process.
_PARTING_SECONDS = 10.0


def are_several() -> bool:
    """Whether there are other processes to talk to."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's number among all, from 0."""
    return dist.get_rank() if are_several() else 0


def all_max(values: Sequence[int], device: torch.device) -> list[int]:
    """The maximum over all processes of each of a few numbers."""
    if not are_several():
        return list(values)
    numbers = torch.tensor(values, dtype=torch.int64, device=device)
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return [int(number) for number in numbers.tolist()]


def gather(value: T) -> list[T]:
    """The value of every process, by rank; values are pickled by torch on the way."""
    if not are_several():
        return [value]
    gathered: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered  # type: ignore[return-value]


def broadcast(value: T) -> T:
    """The first process's value."""
    if not are_several():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def process_group() -> Iterator[None]:
    """Leave the process group that the block brings up when it ends, however it ends.

    One that stood before is its maker's to leave. Processes that exit while their group still stands abort now and
    then. After an error the others may be gone or wait for something else, and leaving could wait for them, so it
    is then given a few seconds and no more.
    """
    if dist.is_available() and dist.is_initialized():
        yield
        return
    try:
        yield
    except BaseException:
        parting = threading.Thread(target=_leave, daemon=True)
        parting.start()
        parting.join(_PARTING_SECONDS)
        raise
    _leave()


def _leave() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
