"""Processes that work for this one, and end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ocrmem.errors import OcrMemError, Problem

Task = TypeVar("Task")
Result = TypeVar("Result")


class WorkerPool(Generic[Task, Result]):
    """Spawned processes, each with a function of its own that does tasks. They end when this process does.

    Args:
        workers: how many.
        make: is called once in each process, with the process's number from 0 and ``given``; returns its function.
        given: sent to each process.
        died: is raised where a process died.
    """

    def __init__(
        self, workers: int, make: Callable[[int, Any], Callable[[Task], Result]], given: Any, died: OcrMemError
    ) -> None:
        # Spawned, not forked: the parent has threads (tokenizers, Arrow, CUDA), which a fork does not survive.
        context = multiprocessing.get_context("spawn")
        self._lifeline, self._end = context.Pipe(duplex=False)
        arguments = (self._lifeline, context.Value("i", 0), make, given)
        self._executor = ProcessPoolExecutor(workers, context, initializer=_start, initargs=arguments)
        self._died = died

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._executor.shutdown()
        self._end.close()
        self._executor.shutdown(cancel_futures=True)
        self._lifeline.close()

    def submit(self, task: Task) -> Future[Any]:
        """Hand out a task; `result` gives what became of it."""
        try:
            return self._executor.submit(_run, task)
        except BrokenProcessPool:
            raise self._died from None

    def result(self, future: Future[Any]) -> Result:
        """Wait for a task.

        Raises:
            OcrMemError: the task raised it, or the process died.
        """
        try:
            found = future.result()
        except BrokenProcessPool:
            raise self._died from None
        if isinstance(found, _Failure):
            raise found.kind(found.problems)
        return found  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Failure:
    """An error on its way from a worker: exceptions themselves travel by their message only."""

    kind: type[OcrMemError]
    problems: tuple[Problem, ...]


# Each process makes its function once; a pool has no other place to keep it.
_work: Callable[[Any], Any] | None = None


def _start(
    lifeline: Connection, started: Synchronized[int], make: Callable[[int, Any], Callable[[Any], Any]], given: Any
) -> None:
    global _work
    # Ctrl-C reaches the whole group: the parent decides, a worker's own traceback would only be noise.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    with started.get_lock():
        number = started.value
        started.value += 1
    _work = make(number, given)


def _run(task: Any) -> Any:
    if _work is None:
        raise RuntimeError("the process was not started by a WorkerPool")
    try:
        return _work(task)
    except OcrMemError as error:
        return _Failure(type(error), error.problems)


def _end_with(lifeline: Connection) -> None:
    """Exit as soon as the parent closes its end of the pipe or dies.

    A pool's workers do not notice that their parent was killed: they would wait for work forever.
    """
    lifeline.poll(None)
    os._exit(1)
