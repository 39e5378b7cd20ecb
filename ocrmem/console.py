"""What a person sees while a verb runs: one rich console on stderr and one kind of progress bar.

stdout is left to the verb's result, so that ``--json`` prints one JSON object there and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    console.print(text, markup=False, soft_wrap=True)


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
