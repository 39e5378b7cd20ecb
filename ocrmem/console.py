"""What a person sees while a verb runs: one rich console on stderr and one kind of progress bar.

stdout is left to the verb's result, so that ``--json`` prints one JSON object there and nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, highlight=False)


def set_quiet(quiet: bool) -> None:
    """Silence progress bars and notes; errors and results are printed elsewhere."""
    console.quiet = quiet


def note(text: str) -> None:
    """Print one line for the person who watches. The text is data: rich markup in it is not read."""
    console.print(text, markup=False, emoji=False, soft_wrap=True)


class Bar:
    """A task on a progress bar: ``advance`` it, ``describe`` what is being done."""

    def __init__(self, progress: Progress, task: object) -> None:
        self._progress = progress
        self._task = task

    def advance(self, by: float = 1) -> None:
        self._progress.advance(self._task, by)  # type: ignore[arg-type]

    def describe(self, text: str) -> None:
        self._progress.update(self._task, description=text)  # type: ignore[arg-type]

    def set_completed(self, done: float, total: float | None = None) -> None:
        self._progress.update(self._task, completed=done, total=total)  # type: ignore[arg-type]


@contextmanager
def progress_bar(description: str, total: float | None) -> Iterator[Bar]:
    """A progress bar on stderr; where stderr is not a terminal, only a closing line is written."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=console.quiet) as progress:
        yield Bar(progress, progress.add_task(description, total=total))


def print_problems(problems: Sequence[object]) -> None:
    """Print what went wrong on stderr, a line each, however quiet it is meant to be."""
    for problem in problems:
        print(problem, file=sys.stderr)
    if len(problems) > 1:
        print(f"{len(problems)} problems.", file=sys.stderr)
    sys.stderr.flush()


def quiet_libraries() -> None:
    """Libraries answer to the environment; what a person has set there stands."""
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
    }.items():
        os.environ.setdefault(name, value)
