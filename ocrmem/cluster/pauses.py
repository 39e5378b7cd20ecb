"""How long the launcher waits for what, and the clock that it waits by."""

from __future__ import annotations

from dataclasses import dataclass

from ocrmem.retry import SYSTEM_CLOCK, Clock


@dataclass(frozen=True)
class Pauses:
    """Waiting times, in seconds.

    Attributes:
        first: before the first retry of a call, and between two looks at what is being deleted.
        longest: between two retries.
        settle: from a failed pod, with no successor, to the verdict that the job has failed.
        logs: for the last log lines once the job has ended.
        restart: before the job is started again after a preemption; doubled for each further one.
        watch: after which the server ends a watch; a new one resumes where it stopped.
        silence: without a byte from an open connection it is taken for dead.
        tick: real seconds between two verdicts while nothing happens.
        clock: what all but ``watch``, ``silence`` and ``tick`` are measured by; tests drive it by hand.
    """

    first: float = 0.5
    longest: float = 30.0
    settle: float = 60.0
    logs: float = 60.0
    restart: float = 10.0
    watch: float = 240.0
    silence: float = 300.0
    tick: float = 0.2
    clock: Clock = SYSTEM_CLOCK
