"""Two signals are two requests only where time lies between them."""

from __future__ import annotations

import signal
import threading

import pytest

from ocrmem.signals import on_signals


@pytest.mark.parametrize(
    ("seconds", "asked", "insisted"),
    [
        ([10.0], [signal.SIGTERM], []),
        ([10.0, 10.0, 10.5], [signal.SIGTERM], []),  # a job's processes are signalled together, and by each other
        ([10.0, 10.0, 12.0], [signal.SIGTERM], [signal.SIGTERM]),
        ([10.0, 12.0, 12.1], [signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM]),
    ],
)
def test_the_first_asks_and_another_insists_unless_it_is_the_same(
    seconds: list[float], asked: list[int], insisted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(seconds)
    monkeypatch.setattr("ocrmem.signals.time.monotonic", lambda: next(times))
    first: list[int] = []
    again: list[int] = []
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with on_signals(first.append, again.append):
        for _ in seconds:
            signal.raise_signal(signal.SIGTERM)
    assert (first, again) == (asked, insisted)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_thread_takes_no_handlers() -> None:
    seen: list[bool] = []

    def look() -> None:
        with on_signals(lambda _: None, lambda _: None):
            seen.append(signal.getsignal(signal.SIGTERM) is before)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [True]
