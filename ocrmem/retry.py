"""The one retry policy: which failures pass by themselves, how long to wait between attempts, when to give up.

    path = retrying("model hub", lambda: cached_file(name, "config.json"))

    retry = Retry("Kubernetes API, list pods", give_up=600)
    while True:
        try:
            return call()
        except ApiError as error:
            if not error.transient or not retry.wait(str(error), error.retry_after):
                raise

Time comes from a `Clock`, so that tests drive it by hand. Libraries that retry by themselves (boto3, MLflow) take
`ATTEMPTS` from here.
"""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeVar

from ocrmem.console import note

Answer = TypeVar("Answer")

ATTEMPTS = 4
TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})  # of HTTP
LONGEST_RETRY_AFTER = 120.0  # s; a server may ask for any time

# Base classes of "no answer" in urllib3, requests, httpx, aiohttp, botocore and http.client. By name: this module
# imports none of them.
_NO_ANSWER = {
    "ConnectionError",
    "TimeoutError",
    "Timeout",
    "TransportError",
    "HTTPClientError",
    "ClientConnectionError",
    "ProtocolError",
    "IncompleteRead",
    "RemoteDisconnected",
}
_FINAL = {"OfflineModeIsEnabled", "GatedRepoError", "RepositoryNotFoundError", "RevisionNotFoundError"}  # of the hub


class Clock:
    """Where time comes from: the system's, or what a test moves by hand."""

    def now(self) -> float:
        """Return seconds on a clock that never goes back."""
        return time.monotonic()

    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        """Wait; return True at once when ``stop`` is set."""
        return (stop or threading.Event()).wait(seconds)


SYSTEM_CLOCK = Clock()


@dataclass
class Retry:
    """Exponential back-off with jitter, which ends when ``give_up`` seconds have passed without a success."""

    what: str  # the call, for the one line that is printed when it begins to fail
    give_up: float
    _: KW_ONLY
    attempts: int | None = None  # give up after so many as well; None: no limit
    # Before the first retry, doubled for each further one. Between half of it and all of it is waited, at random, so
    # that many clients of one server do not come back in the same moment.
    first: float = 0.5
    longest: float = 30.0  # between two attempts
    clock: Clock = SYSTEM_CLOCK
    stop: threading.Event | None = None  # waiting ends at once when it is set
    _failing_since: dict[float, float] = field(default_factory=dict, init=False)  # by the limit that holds
    _failures: int = field(default=0, init=False)

    def succeeded(self) -> None:
        """Forget the failures: the next one is a first one."""
        self._failures = 0
        self._failing_since.clear()

    def wait(self, reason: str | None, retry_after: float | None = None, *, within: float | None = None) -> bool:
        """Wait before the next attempt; return False when it is time to give up.

        Args:
            reason: of the failure, printed with the first one that a limit holds for; None prints nothing.
            retry_after: seconds that the server asked to wait.
            within: give up when failures of this kind have come for these seconds, if those are fewer.
        """
        if self.stop and self.stop.is_set():
            return False
        self._failures += 1
        now = self.clock.now()
        limit = self.give_up if within is None else min(within, self.give_up)
        is_first = limit not in self._failing_since
        begun = self._failing_since.setdefault(limit, now)
        longest = now - min(self._failing_since.values())
        if self._failures == self.attempts or now - begun > limit or longest > self.give_up:
            return False
        if reason and is_first:
            note(f"{self.what}: {reason}; trying again for up to {limit:.0f} s")
        pause = min(self.first * 2 ** min(self._failures - 1, 30), self.longest) * random.uniform(0.5, 1)
        if retry_after is not None:
            pause = min(retry_after, LONGEST_RETRY_AFTER)
        return not self.clock.wait(pause, self.stop)


def retrying(what: str, call: Callable[[], Answer], *, clock: Clock = SYSTEM_CLOCK) -> Answer:
    """Return what ``call`` returns, calling it again after a failure that may pass by itself (`is_transient`).

    Raises:
        Exception: the last failure of ``call``, after `ATTEMPTS` or 30 seconds.
    """
    retry = Retry(what, give_up=30, attempts=ATTEMPTS, clock=clock)
    while True:
        try:
            return call()
        except Exception as error:
            if not is_transient(error) or not retry.wait(type(error).__name__):
                raise


def is_transient(error: BaseException) -> bool:
    """Return whether the same call may succeed in a moment: no answer, or one that says "not now".

    The causes of an error count too, since libraries wrap what went wrong in errors of their own.
    """
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(cause):
            return False
        if _names(cause) & _FINAL:
            return False
    for cause in chain:
        status = http_status(cause)
        if status is not None:
            return status in TRANSIENT_STATUSES
    return any(_names(cause) & _NO_ANSWER for cause in chain)


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status that an error of any of the usual clients carries; None for one without."""
    answer: Any = getattr(error, "response", None)
    if isinstance(answer, dict):  # botocore
        found = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(answer, "status_code", None) or getattr(error, "status", None) or getattr(error, "code", None)
    return found if isinstance(found, int) and 100 <= found < 600 else None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}
