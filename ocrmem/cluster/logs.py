"""Follow a container's log line by line, with no line lost or repeated when the connection breaks.

The server stamps each line (``timestamps=true``); after a break the log is asked for from a little before the last
line, and what has been seen is skipped by its stamp. How long ago that was is measured by this machine's own clock,
since the two need not agree.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from queue import Queue
from typing import Any

from ocrmem.cluster.api import Api, ApiError
from ocrmem.cluster.permissions import POD_LOGS
from ocrmem.errors import OcrMemError

_MARGIN_SECONDS = 60  # a line may have been on its way for so long
_NOT_STARTED = 400  # "container is waiting to start"
_GONE = 404


@dataclass(frozen=True)
class LogLine:
    pod: str
    text: str


@dataclass(frozen=True)
class LogEnd:
    """No further line of this pod will come; with an error, because the log cannot be read."""

    pod: str
    error: OcrMemError | None = None


class LogFollower(threading.Thread):
    """Put a `LogLine` for every line into `updates`, and `LogEnd` after `finish` when the last is there.

    Args:
        tail: begin with so many lines of what is there; None: with the first.
    """

    def __init__(
        self,
        api: Api,
        pod: str,
        container: str,
        updates: Queue[Any],
        stop: threading.Event,
        tail: int | None = None,
    ) -> None:
        super().__init__(name=f"log of {pod}", daemon=True)
        self._api = api
        self._clock = api.pauses.clock
        self._pod = pod
        self._container = container
        self._updates = updates
        self._stop_asked = stop
        self._tail = tail
        self._ended = threading.Event()
        self._last = ""  # stamp of the last line that was passed on
        self._at_last = 0  # lines passed on with that stamp
        self._heard = 0.0  # when, by this machine's monotonic clock
        self._retry = api.retry(f"Kubernetes API, log of {pod}", stop)

    def finish(self) -> None:
        """Read what is left of the log and end: the container has ended."""
        self._ended.set()

    def run(self) -> None:
        error = self._follow()
        self._updates.put(LogEnd(self._pod, error))

    def _follow(self) -> OcrMemError | None:
        while not self._stop_asked.is_set():
            last_round = self._ended.is_set()
            try:
                self._read(last_round)
            except ApiError as error:
                if error.idle:
                    continue
                if error.status == _GONE:
                    return None
                if error.status == _NOT_STARTED and not last_round:
                    error.transient = True
                if not self._api.passes(error, POD_LOGS, "get", self._retry, self._pod):
                    return self._api.explained(error, POD_LOGS, "get")
                continue
            if last_round:
                return None
            # The stream ended: the container has, or the connection did.
            self._clock.wait(self._api.pauses.first, self._ended)
        return None

    def _read(self, last_round: bool) -> None:
        query: dict[str, Any] = {"container": self._container, "timestamps": "true"}
        if not last_round:
            query["follow"] = "true"
        if self._last:
            query["sinceSeconds"] = math.ceil(self._clock.now() - self._heard) + _MARGIN_SECONDS
        elif self._tail is not None:
            query["tailLines"] = self._tail
        seen = 0
        response = self._api.open(POD_LOGS, "get", self._pod, query, silence=self._api.pauses.silence)
        self._retry.succeeded()
        for raw in self._api.lines(response):
            if self._stop_asked.is_set():
                return
            if not raw.endswith(b"\n") and not last_round:
                return  # cut off; it comes whole when the log is asked for again
            stamp, _, text = raw.decode("utf-8", errors="replace").rstrip("\r\n").partition(" ")
            stamp = _comparable(stamp)
            if stamp < self._last:
                continue
            seen = seen + 1 if stamp == self._last else 1
            if stamp == self._last and seen <= self._at_last:
                continue
            self._last, self._at_last, self._heard = stamp, seen, self._clock.now()
            self._updates.put(LogLine(self._pod, text))


def _comparable(stamp: str) -> str:
    """RFC 3339 with all nine digits of the fraction, which servers shorten, so that stamps compare as text."""
    seconds, _, fraction = stamp.removesuffix("Z").partition(".")
    return f"{seconds}.{fraction:0<9}"
