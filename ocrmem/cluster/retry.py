"""How long to wait before a call is made again, and when to give up."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from ocrmem.console import note

LONGEST_RETRY_AFTER = 120.0  # s; a server may ask for any time


@dataclass(frozen=True)
class Pauses:
    """Waiting times, in seconds.

    Attributes:
        first: before the first retry; doubled for each further one.
        longest: between two retries.
        settle: from a failed pod, with no successor, to the verdict that the job has failed.
        logs: for the last log lines once the job has ended.
        restart: before the job is started again after a preemption; doubled for each further one.
        watch: after which the server ends a watch; a new one takes over where it stopped.
        silence: without a byte from an open connection it is taken for dead.
    """

    first: float = 0.5
    longest: float = 30.0
    settle: float = 60.0
    logs: float = 20.0
    restart: float = 10.0
    watch: float = 240.0
    silence: float = 300.0


class Retry:
    """Exponential back-off that ends when `give_up` seconds have passed without a success.

    Args:
        what: the call, for the one line that is printed when it begins to fail.
        stop: waiting ends at once when it is set.
    """

    def __init__(self, what: str, pauses: Pauses, give_up: float, stop: threading.Event | None = None) -> None:
        self._what = what
        self._pauses = pauses
        self._give_up = give_up
        self._stop = stop or threading.Event()
        self.succeeded()

    def succeeded(self) -> None:
        self._failing_since: float | None = None
        self._pause = self._pauses.first

    def wait(self, reason: str | None, retry_after: float | None = None) -> bool:
        """Wait before the next attempt; False when it is time to give up. A failure without a reason is not told."""
        if self._stop.is_set():
            return False
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            if reason:
                note(f"{self._what}: {reason}; trying again for up to {self._give_up:.0f} s")
        elif now - self._failing_since > self._give_up:
            return False
        pause = self._pause if retry_after is None else min(retry_after, LONGEST_RETRY_AFTER)
        self._pause = min(self._pause * 2, self._pauses.longest)
        return not self._stop.wait(pause)
