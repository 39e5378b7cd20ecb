"""The processes that make shards: this one, or several others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocrmem.config import RunConfig
from ocrmem.conversations import Conversation
from ocrmem.dataset.samples import SampleMaker
from ocrmem.dataset.unfinished_shards import write_part
from ocrmem.environment import available_cores
from ocrmem.errors import DataError, Problem
from ocrmem.tokens import load_tokenizer
from ocrmem.worker_pool import WorkerPool

# A process needs about five seconds to import the tokenizer's library; it renders 1 MB of text a second.
_BYTES_A_WORKER = 4_000_000


@dataclass(frozen=True)
class Job:
    """One shard to be made."""

    directory: Path
    index: int
    conversations: tuple[Conversation, ...]


def worker_count(asked: int, shards: int, size: int) -> int:
    """Return the number of processes to use, never more than there are shards.

    Args:
        asked: data.workers; 0 means one a core, as far as there is work for them.
        shards: to be made.
        size: bytes of their conversations.
    """
    if not asked:
        asked = min(available_cores(), 1 + size // _BYTES_A_WORKER)
    return max(min(asked, shards), 1)


def run_jobs(config: RunConfig, jobs: Iterable[Job], workers: int) -> Iterator[tuple[Job, list[Problem]]]:
    """Make shards; yield each as it is done, in any order, with the problems of its samples.

    Raises:
        DataError: a process died; complete shards stay.
    """
    if workers == 1:
        write = None
        for job in jobs:
            write = write or _writer(0, config)
            yield job, write(job)
        return
    died = DataError.of(
        "render",
        "a worker process died, most likely because memory ran out",
        "Lower data.workers or data.shard_conversations and run again; complete shards are kept",
    )
    with WorkerPool[Job, list[Problem]](workers, _writer, config, died) as pool:
        yield from _share_out(pool, jobs, workers)


def _share_out(
    pool: WorkerPool[Job, list[Problem]], jobs: Iterable[Job], workers: int
) -> Iterator[tuple[Job, list[Problem]]]:
    """Hand out jobs so that only a few shards' conversations are on their way at a time."""
    waiting = iter(jobs)
    running: dict[Future[Any], Job] = {}
    while True:
        while len(running) < 2 * workers and (job := next(waiting, None)) is not None:
            running[pool.submit(job)] = job
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            problems = pool.result(future)
            yield running.pop(future), problems


def _writer(number: int, config: RunConfig) -> Callable[[Job], list[Problem]]:
    """Return what makes shards, with a tokenizer and an atlas of its own."""
    maker = SampleMaker(config, load_tokenizer(config))
    return lambda job: write_part(job.directory, job.index, job.conversations, maker)
