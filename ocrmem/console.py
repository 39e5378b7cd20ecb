"""Output for a person while a verb runs, all on stderr: notes, problems and one kind of progress bar.

stdout belongs to the verb's result, so that ``--json`` prints one JSON object there and nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich import progress
from rich.console import Console

from ocrmem.secrets import without_credentials

SECONDS_BETWEEN_LINES = 60.0  # of a bar that is not on a terminal: a pod's log shows that the run goes on
console = Console(stderr=True, highlight=False)


@contextmanager
def silenced(quiet: bool) -> Iterator[None]:
    """Do as `set_quiet` within the block, and let the console be as it was afterwards."""
    before = console.quiet
    console.quiet = quiet
    try:
        yield
    finally:
        console.quiet = before


def set_quiet(quiet: bool) -> None:
    """Silence progress bars and notes; errors and results are still printed."""
    console.quiet = quiet


def note(text: str) -> None:
    """Print a text, in which rich markup is not interpreted, without keys."""
    console.print(without_credentials(text), markup=False, emoji=False, soft_wrap=True)


class Bar:
    """One task on a progress bar; where that is not on a terminal, a line now and then."""

    def __init__(self, live: progress.Progress, task: progress.TaskID) -> None:
        self._live = live
        self._task = task
        self._said = 0.0  # seconds from the start

    def advance(self, by: float = 1) -> None:
        self._live.advance(self._task, by)
        self._say()

    def describe(self, text: str) -> None:
        self._live.update(self._task, description=text)

    def set_completed(self, done: float, total: float | None = None) -> None:
        self._live.update(self._task, completed=done, total=total)
        self._say()

    def _say(self) -> None:
        if console.is_interactive or console.is_jupyter:
            return
        (task,) = self._live.tasks
        elapsed = task.elapsed or 0.0
        if task.finished or elapsed - self._said < SECONDS_BETWEEN_LINES:
            return
        self._said = elapsed
        parts = [f"{task.completed:,.0f}" + ("" if task.total is None else f" of {task.total:,.0f}")]
        parts.append(f"{timedelta(seconds=int(elapsed))} so far")
        if task.time_remaining is not None:
            parts.append(f"{timedelta(seconds=int(task.time_remaining))} to go")
        note(f"{task.description}: {', '.join(parts)}")


@contextmanager
def progress_bar(description: str, total: float | None) -> Iterator[Bar]:
    """Show a progress bar, unless there is nothing to do; where it is not on a terminal, lines and its last state."""
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console, disable=console.quiet or total == 0) as live:
        yield Bar(live, live.add_task(description, total=total))


def print_problems(problems: Sequence[object]) -> None:
    """Print problems, one a line, even when the console is quiet."""
    for problem in problems:
        print(problem, file=sys.stderr)
    if (count := sum(getattr(problem, "count", 1) for problem in problems)) > 1:
        print(f"{count:,} problems.", file=sys.stderr)
    sys.stderr.flush()


def quiet_libraries() -> None:
    """Turn off other libraries' telemetry and progress bars, unless the environment already says otherwise."""
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
    }.items():
        os.environ.setdefault(name, value)
