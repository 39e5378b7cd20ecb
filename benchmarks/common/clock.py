"""Processor seconds: other work on the machine counts for neither side of a comparison."""

from __future__ import annotations

import os
import resource
import statistics
from collections.abc import Callable, Sequence


def processor_seconds() -> float:
    """Of this process and of its children that have ended, user and system."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def seconds_of(jobs: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Processor seconds of each job: the median of ``repeats`` runs, in turn with the others, after one that warms
    up."""
    times: list[list[float]] = [[] for _ in jobs]
    for number in range(repeats + 1):
        for job, its in zip(jobs, times, strict=True):
            start = processor_seconds()
            job()
            if number:
                its.append(processor_seconds() - start)
    return [statistics.median(its) for its in times]


def pin_to_one_core() -> str:
    """Keep this process, and so its children, on one core where the system can; says which."""
    if not hasattr(os, "sched_setaffinity"):
        return "not pinned to a core"
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return f"pinned to core {core}"


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> str:
    """What else the machine does, as far as it tells."""
    return f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"
