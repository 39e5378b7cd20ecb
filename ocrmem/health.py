"""Ask an HTTP service for one answer within seconds: the clients built for it would retry a silent one for minutes."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from ocrmem.secrets import redact

ANSWER_SECONDS = 5  # how long a service may take to accept a connection and to begin its answer


class NoAnswerError(Exception):
    """The service did not answer; the text is the reason, without secrets."""


@dataclass(frozen=True)
class HttpAnswer:
    """An answer of a service, a refusal included: HTTP's status and reason (without secrets), and the body."""

    status: int
    reason: str
    body: bytes = b""  # of a refusal, nothing

    @property
    def refused(self) -> bool:
        return self.status >= 400

    def json(self) -> Any:
        """Return the body as JSON; None where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def ask(url: str, token: str | None = None, seconds: float = ANSWER_SECONDS) -> HttpAnswer:
    """Send one GET, with a bearer token if there is one; ``seconds`` bound the connection and each wait on it.

    Raises:
        NoAnswerError: there is no such address, or no answer came in time.
    """
    try:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
        with urllib.request.urlopen(request, timeout=seconds) as response:
            return HttpAnswer(response.status, redact(response.reason or ""), response.read())
    except urllib.error.HTTPError as error:
        return HttpAnswer(error.code, redact(str(error.reason or "")).strip())
    except (OSError, HTTPException, ValueError) as error:
        reason = str(getattr(error, "reason", None) or error).strip()
        raise NoAnswerError(redact(reason) or type(error).__name__) from None
