"""A run on this machine and the process of its task end together.

The process that runs the pipeline hands SIGINT and SIGTERM on to the running task. The task watches that process, since
one that is killed hands on nothing. A parent-death signal would not reach it: its parent is a shell that Kubeflow
Pipelines starts.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from ocrmem.console import note
from ocrmem.signals import on_signals
from ocrmem.workflow.records import RUNNING, read_records, run_directory

RUNNER = "OCRMEM_RUNNER"  # environment variable: id of the process that runs the pipeline
TERMINATED = 128 + signal.SIGTERM  # the exit code of a shell for what SIGTERM has ended
LOG = "log.txt"  # in the run's directory: everything that tasks print
STOP = "stop"  # file in the run's directory: no task begins any more


class Stopped(KeyboardInterrupt):
    """SIGTERM has reached a task; the text says why. Like Ctrl-C it is nothing that libraries catch."""


@dataclass
class StopRequest:
    """Whether the process that runs the pipeline was asked to stop, and by which signal."""

    signal: int | None = None


@contextmanager
def handing_on_signals(directory: Path) -> Iterator[StopRequest]:
    """Hand the first SIGINT or SIGTERM to the running task, which saves what it can; a second one kills it.

    Args:
        directory: the run's.
    """
    request = StopRequest()

    def ask(number: int) -> None:
        request.signal = number
        (directory / STOP).touch()  # for a task that has not written its process id yet, and for those after it
        note("Stopping the running task. Send it again to stop at once.")
        _signal(directory, os.kill, signal.SIGTERM)

    def insist(number: int) -> NoReturn:
        _signal(directory, os.killpg, signal.SIGKILL)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    with on_signals(ask, insist):
        yield request


def _signal(directory: Path, send: Callable[[int, int], None], number: int) -> None:
    for record in read_records(directory).values():
        if record.status == RUNNING and record.pid is not None:
            with suppress(ProcessLookupError):
                send(record.pid, number)


@dataclass
class TaskStop:
    """How a task learns that it is to end.

    Attributes:
        reason: where no signal came from outside, what took its place.
    """

    reason: str | None = None

    def check(self) -> None:
        """Raise `Stopped` where the run was stopped before this task had written its process id."""
        directory = run_directory()
        if RUNNER in os.environ and directory is not None and (directory / STOP).exists():
            raise Stopped("was not begun: the run had been stopped")


@contextmanager
def stoppable() -> Iterator[TaskStop]:
    """Within the block SIGTERM raises `Stopped`, and the end of the process that runs the pipeline is a SIGTERM."""
    stop = TaskStop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def end(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # what follows is putting away
        raise Stopped(f"was stopped: {stop.reason}" if stop.reason else "was stopped by SIGTERM")

    before = signal.signal(signal.SIGTERM, end)
    try:
        if runner := os.environ.get(RUNNER):
            # A group of its own: Ctrl-C comes from the runner alone, and a kill takes the task's children along.
            with suppress(PermissionError):
                os.setpgid(0, 0)
            _write_to_log()
            threading.Thread(target=_end_with, args=(int(runner), stop), daemon=True).start()
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _write_to_log() -> None:
    """Let this process and its children write to the run's log themselves.

    Their output is a pipe to the runner, and writing to it would end what the runner's end should only stop. The pipe
    stays open: Kubeflow Pipelines waits for its end.
    """
    directory = run_directory()
    if directory is None:
        return
    log = os.open(directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.stdout.flush()
    os.dup(1)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)


def _end_with(runner: int, stop: TaskStop) -> None:
    if hasattr(os, "pidfd_open"):  # Linux
        with suppress(ProcessLookupError):
            select.select([os.pidfd_open(runner)], [], [])
        stop.reason = "the process that ran the pipeline has ended"
        main = threading.main_thread()
        if main.ident is not None:
            signal.pthread_kill(main.ident, signal.SIGTERM)


def again() -> str:
    """Return what resumes the run that this process belongs to."""
    directory = run_directory()
    if directory is None or RUNNER not in os.environ:
        return "Start the task again: training resumes from its newest checkpoint"
    return f"Run the same command again with --resume {directory.name}"
