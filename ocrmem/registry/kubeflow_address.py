"""Where a Kubeflow Model Registry is, the token that it may ask for, and what its refusals mean."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ocrmem.errors import ConfigError, Problem
from ocrmem.health import NoAnswerError, ask
from ocrmem.secrets import redact, redact_uri

TOKEN = "MODEL_REGISTRY_TOKEN"
API = "/api/model_registry/v1"
# Where Kubeflow's own clients look: a path in the environment, or the pod's service account.
_TOKEN_PATH = "KF_PIPELINES_SA_TOKEN_PATH"
_POD_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_FIELD = "register.uri"
_PORTS = {"http": 8080, "https": 443}  # the defaults of Kubeflow's client


@dataclass(frozen=True)
class Address:
    """A registry's base URL, port included.

    Attributes:
        url: ``http://host:port/path``, without a slash at its end.
    """

    url: str

    @classmethod
    def of(cls, uri: str) -> Address:
        """From ``kubeflow+http://host[:port][/path]``.

        Raises:
            ConfigError: the port is none.
        """
        parts = urlsplit(uri.removeprefix("kubeflow+"))
        try:
            port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            raise ConfigError.of(_FIELD, f"is {redact_uri(uri)!r}", "Write kubeflow+http://host:port") from None
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return cls(f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}")

    def token(self) -> str | None:
        """The bearer token of the environment or of the pod, if there is one.

        Raises:
            ConfigError: the registry is reached by https, which its client refuses to use without a token.
        """
        token = os.environ.get(TOKEN, "").strip()
        path = Path(os.environ.get(_TOKEN_PATH) or _POD_TOKEN)
        if not token:
            try:
                token = path.read_text(encoding="utf-8").strip()
            except OSError:
                token = ""
        if not token and self.url.startswith("https:"):
            raise ConfigError.of(_FIELD, f"{self.url} wants a token, and there is none", _SET_TOKEN)
        return token or None

    def problem(self) -> Problem | None:
        """Ask for one registered model; what keeps the registry from answering, or None. Takes seconds at most."""
        try:
            token = self.token()
        except ConfigError as error:
            return error.problems[0]
        try:
            answer = ask(f"{self.url}{API}/registered_models?pageSize=1", token)
        except NoAnswerError as error:
            return self.silent(error)
        if answer.refused:
            return self.refused(answer.status, answer.reason)
        found = answer.json()
        return None if isinstance(found, dict) and "pageSize" in found else self.stranger()

    def refused(self, status: int, reason: str | None) -> Problem:
        """What an HTTP status of the registry means."""
        text = f"the registry {self.url} answers {status} {redact(str(reason or '')).strip()}".rstrip()
        if status in (401, 403):
            return Problem(
                _FIELD, text, _SET_TOKEN if status == 401 else "Give the token's account rights to write there"
            )
        if status == 404:
            return Problem(_FIELD, f"{text}: there is no model registry at that address", "Check host, port and path")
        if status >= 500:
            return Problem(_FIELD, text, "Look at the registry's log; run this again when it is well")
        return Problem(_FIELD, text, "Check the name and the registry's version (its API is v1)")

    def silent(self, error: BaseException) -> Problem:
        """The registry did not answer."""
        reason = redact(str(getattr(error, "reason", None) or error)).strip() or type(error).__name__
        return Problem(
            _FIELD,
            f"the registry {self.url} does not answer ({reason})",
            "Check the address, that it is up, and that the network lets this machine reach it",
        )

    def stranger(self) -> Problem:
        """Something answered that is no model registry."""
        return Problem(_FIELD, f"what answers at {self.url} is no Kubeflow Model Registry", "Check host, port and path")


_SET_TOKEN = f"Set {TOKEN} in the environment, or {_TOKEN_PATH} to a file that holds the token"
