"""The process's surroundings: environment variables set for a while, and the cores that it may use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ocrmem.errors import ConfigError


def available_cores() -> int:
    """Return how many cores this process may use: a container or `taskset` may give it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes_per_node(wanted: str) -> int:
    """Return the processes that ``--nproc`` asks for: a number, or ``auto``.

    ``auto`` is PET_NPROC_PER_NODE where it is a number, else one process a GPU, else one process on all cores.

    Raises:
        ConfigError: it is neither.
    """
    if wanted == "auto":
        wanted = os.environ.get("PET_NPROC_PER_NODE", "")
        if not wanted.isdigit():
            import torch

            return max(torch.cuda.device_count(), 1)
    if not wanted.isdigit() or int(wanted) < 1:
        raise ConfigError.of("--nproc", f"is {wanted!r}", "Give the number of processes on this machine, or auto")
    return int(wanted)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process within the block, and restore or remove them afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
