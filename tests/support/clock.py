"""A clock that a test drives: no test waits for real time, and none fails because the machine is busy."""

from __future__ import annotations

import threading
import time

from ocrmem.retry import Clock


class HandClock(Clock):
    """Time that stands still until it is moved.

    Waiting takes a moment of real time, whatever was asked for, and is written down. With ``runs`` it also moves the
    time on by what was asked: right where one thread alone looks at it.
    """

    def __init__(self, runs: bool = False) -> None:
        self.runs = runs
        self.waits: list[float] = []
        self._now = 1000.0
        self._looks = 0
        self._changed = threading.Condition()

    def now(self) -> float:
        with self._changed:
            if threading.current_thread() is threading.main_thread():
                self._looks += 1
                self._changed.notify_all()
            return self._now

    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        with self._changed:
            self.waits.append(seconds)
            self._now += seconds if self.runs else 0
        return (stop or threading.Event()).wait(0.005)

    def advance(self, seconds: float) -> None:
        with self._changed:
            self._now += seconds

    def advance_and_be_seen(self, seconds: float, limit: float = 300) -> None:
        """Move the time, and return when the main thread has looked at the new one and acted upon it."""
        deadline = time.monotonic() + limit
        with self._changed:
            self._now += seconds
            wanted = self._looks + 3
            while self._looks < wanted:
                if time.monotonic() > deadline:
                    raise TimeoutError("nobody looked at the clock")
                self._changed.wait(1)
