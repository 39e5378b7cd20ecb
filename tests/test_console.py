"""What a progress bar leaves in a log, where there is no terminal to draw it on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ocrmem import console


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], io.StringIO]:
    """Give the console a clock of one value and a file in place of stderr; return both."""
    now, written = [0.0], io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=written, width=100, get_time=lambda: now[0]))
    return now, written


def test_a_log_shows_once_a_minute_how_far_a_long_run_is(clock: tuple[list[float], io.StringIO]) -> None:
    now, written = clock
    with console.progress_bar("train", 6000) as bar:
        bar.describe("train (loss 0.5000)")
        for step in range(1, 181):
            now[0] += 1.0
            bar.advance() if step % 2 else bar.set_completed(step)
    first, second, third, last = written.getvalue().splitlines()
    assert first.startswith("train (loss 0.5000): 60 of 6,000, 0:01:00 so far, 1:3")
    assert [line.split(",")[0] for line in (second, third)] == [
        "train (loss 0.5000): 120 of 6",
        "train (loss 0.5000): 180 of 6",
    ]
    assert "180/6000" in last


@pytest.mark.parametrize(("seconds", "total", "quiet"), [(1.0, 40, False), (100.0, 40, True), (100.0, 0, False)])
def test_a_short_or_quiet_run_leaves_no_lines(
    seconds: float, total: int, quiet: bool, clock: tuple[list[float], io.StringIO]
) -> None:
    now, written = clock
    with console.silenced(quiet), console.progress_bar("train", total) as bar:
        for _ in range(total):
            now[0] += seconds
            bar.advance()
    assert "so far" not in written.getvalue()


def test_a_run_of_unknown_length_is_counted(clock: tuple[list[float], io.StringIO]) -> None:
    now, written = clock
    with console.progress_bar("reading samples", None) as bar:
        now[0] += 75.0
        bar.advance(1234)
    assert written.getvalue().splitlines()[0] == "reading samples: 1,234, 0:01:15 so far"


def test_a_terminal_has_the_bar_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now, written = [0.0], io.StringIO()
    terminal = Console(file=written, width=100, get_time=lambda: now[0], force_terminal=True, force_interactive=True)
    monkeypatch.setattr(console, "console", terminal)
    with console.progress_bar("train", 10) as bar:
        now[0] += 75.0
        bar.advance()
    assert "so far" not in written.getvalue()
