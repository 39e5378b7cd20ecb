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
from typing import Any, Protocol, TypeVar

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


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> float:
        """Return seconds on a clock that never goes back."""

    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        """Wait; return True at once when ``stop`` is set."""


class _SystemClock:
    def now(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        return (stop or threading.Event()).wait(seconds)


SYSTEM_CLOCK: Clock = _SystemClock()


class Retry:
    """Exponential back-off with jitter, which ends when ``give_up`` seconds have passed without a success.

    Args:
        what: the call, for the one line that is printed when it begins to fail.
        give_up: seconds.
        attempts: give up after so many as well; None: no limit.
        first: pause before the first retry, doubled for each further one. Between half of it and all of it is waited,
            at random, so that many clients of one server do not come back in the same moment.
        longest: pause between two attempts.
        stop: waiting ends at once when it is set.
    """

    def __init__(
        self,
        what: str,
        give_up: float,
        *,
        attempts: int | None = None,
        first: float = 0.5,
        longest: float = 30.0,
        clock: Clock = SYSTEM_CLOCK,
        stop: threading.Event | None = None,
    ) -> None:
        self._what = what
        self._give_up = give_up
        self._attempts = attempts
        self._first, self._longest = first, longest
        self._clock = clock
        self._stop = stop or threading.Event()
        self.succeeded()

    def succeeded(self) -> None:
        """Forget the failures: the next one is a first one."""
        self._failing_since: float | None = None
        self._failures = 0

    def wait(self, reason: str | None, retry_after: float | None = None, *, within: float | None = None) -> bool:
        """Wait before the next attempt; return False when it is time to give up.

        Args:
            reason: of the failure, printed once; None prints nothing.
            retry_after: seconds that the server asked to wait.
            within: give up after fewer seconds for a failure of this kind.
        """
        if self._stop.is_set():
            return False
        self._failures += 1
        now = self._clock.now()
        if self._failing_since is None:
            self._failing_since = now
        give_up = self._give_up if within is None else min(within, self._give_up)
        if self._failures == self._attempts or now - self._failing_since > give_up:
            return False
        if reason and self._failures == 1:
            note(f"{self._what}: {reason}; trying again for up to {give_up:.0f} s")
        pause = min(self._first * 2 ** min(self._failures - 1, 30), self._longest) * random.uniform(0.5, 1)
        if retry_after is not None:
            pause = min(retry_after, LONGEST_RETRY_AFTER)
        return not self._clock.wait(pause, self._stop)


def retrying(
    what: str,
    call: Callable[[], Answer],
    *,
    give_up: float = 30.0,
    attempts: int = ATTEMPTS,
    clock: Clock = SYSTEM_CLOCK,
) -> Answer:
    """Return what ``call`` returns, calling it again after a failure that may pass by itself (`is_transient`).

    Raises:
        Exception: the last failure of ``call``.
    """
    retry = Retry(what, give_up, attempts=attempts, clock=clock)
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
