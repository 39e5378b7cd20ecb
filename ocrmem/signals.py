"""SIGINT and SIGTERM as requests to stop: the first one asks, another insists."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_ONE_REQUEST = 1.0  # seconds


@contextmanager
def on_signals(first: Callable[[int], None], again: Callable[[int], None]) -> Iterator[None]:
    """Call ``first`` with the number of the first SIGINT or SIGTERM within the block, ``again`` with that of others.

    What follows within a second belongs to the same request: `timeout`, Slurm and systemd signal every process of a
    job, so that a child gets the signal from them and from its parent. Outside the main thread, where Python takes no
    handlers, the signals are left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: float | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came is None:
            came = time.monotonic()
            first(number)
        elif time.monotonic() - came > _ONE_REQUEST:
            again(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
