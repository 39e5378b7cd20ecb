"""The processes that make shards: this one, or several others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from ocrmem.config import RunConfig
from ocrmem.conversations import Conversation
from ocrmem.dataset.samples import SampleMaker
from ocrmem.dataset.unfinished_shards import write_part
from ocrmem.environment import available_cores
from ocrmem.errors import DataError, OcrMemError, Problem
from ocrmem.tokens import load_tokenizer

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
        maker: SampleMaker | None = None
        for job in jobs:
            maker = maker or SampleMaker(config, load_tokenizer(config))
            yield job, write_part(job.directory, job.index, job.conversations, maker)
        return
    # Spawned, not forked: the parent has threads (tokenizers, Arrow), which a fork does not survive.
    context = multiprocessing.get_context("spawn")
    lifeline, end = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(config, lifeline))
    try:
        yield from _share_out(pool, jobs, workers)
        pool.shutdown()
    except BrokenProcessPool:
        raise DataError.of(
            "render",
            "a worker process died, most likely because memory ran out",
            "Lower data.workers or data.shard_conversations and run again; complete shards are kept",
        ) from None
    finally:
        end.close()
        pool.shutdown(cancel_futures=True)
        lifeline.close()


def _share_out(pool: ProcessPoolExecutor, jobs: Iterable[Job], workers: int) -> Iterator[tuple[Job, list[Problem]]]:
    """Hand out jobs so that only a few shards' conversations are on their way at a time."""
    waiting = iter(jobs)
    running: dict[Future[list[Problem] | _Failure], Job] = {}
    while True:
        while len(running) < 2 * workers and (job := next(waiting, None)) is not None:
            running[pool.submit(_run, job)] = job
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            found = future.result()
            if isinstance(found, _Failure):
                raise found.kind(found.problems)
            yield running.pop(future), found


@dataclass(frozen=True)
class _Failure:
    """An error on its way from a worker: exceptions themselves travel by their message only."""

    kind: type[OcrMemError]
    problems: tuple[Problem, ...]


# Each worker process makes its tokenizer and atlas once; a pool has no other place to keep them.
_maker: SampleMaker | None = None


def _start(config: RunConfig, lifeline: Connection) -> None:
    global _maker
    # Ctrl-C reaches the whole group: the parent decides, a worker's own traceback would only be noise.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    _maker = SampleMaker(config, load_tokenizer(config))


def _run(job: Job) -> list[Problem] | _Failure:
    if _maker is None:
        raise RuntimeError("the worker process was not started by run_jobs")
    try:
        return write_part(job.directory, job.index, job.conversations, _maker)
    except OcrMemError as error:
        return _Failure(type(error), error.problems)


def _end_with(lifeline: Connection) -> None:
    """Exit as soon as the parent closes its end of the pipe or dies.

    A pool's workers do not notice that their parent was killed: they would wait for work forever.
    """
    lifeline.poll(None)
    os._exit(1)
