"""Find keys in settings: refused and never printed, since settings are copied into model cards, run logs and git."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_WORD = r"(?<![A-Za-z0-9])"
_PATTERNS = {
    "a Hugging Face token": _WORD + r"hf_[A-Za-z0-9]{16,}",
    "an OpenAI-style key": _WORD + r"sk-[A-Za-z0-9_-]{16,}",
    "an AWS access key": _WORD + r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    "a GitHub token": _WORD + r"(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})",
    "a GitLab token": _WORD + r"glpat-[A-Za-z0-9_-]{16,}",
    "a Slack token": _WORD + r"xox[abeoprs]-[A-Za-z0-9-]{8,}",
    "a Google key": _WORD + r"AIza[A-Za-z0-9_-]{30,}",
    "a Weights & Biases key": _WORD + r"wandb_v[0-9]_[A-Za-z0-9_]{16,}",
    "a JSON web token": _WORD + r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
    "a bearer token": r"(?i:\bbearer\s+)[A-Za-z0-9._~+/-]{16,}",
}
# Of a URL, read generously: a password may hold every sign but a blank or a quote, and so may what is no password.
_BEFORE_AT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s\"'`<>]*)@")
_QUERY_KEY = re.compile(
    r"([?&;](?:[\w.-]*[_.-])?(?:sig|signature|(?:\w*)token|secret|password|passwd|pwd|(?:api|access)?[_-]?key(?:[_-]?id)?"
    r"|credentials?|auth|jwt)=)([^&#\s\"'`<>]+)",
    re.IGNORECASE,
)
_HOST_AND_PORT = re.compile(r"(?:localhost|[^:@]*\.[^:@]*|\[[^]@]*\]):\d+")
_URI_NAME = re.compile(r"(?:^|_)(?:ur[il]|endpoint|remote|store)$", re.IGNORECASE)
_SECRET = re.compile("|".join(f"({pattern})" for pattern in _PATTERNS.values()))
_HEX_KEY = re.compile(r"(?<![0-9A-Za-z/\\])[0-9a-f]{40}(?![0-9A-Za-z])")  # in a path it is a commit
_COMMIT_FIELD = re.compile(r"(?:^|_)(?:revision|commit|sha|hash)$")
_KEY_NAME = re.compile(
    r"(?:^|[_.-])(?:token|secrets?|passwords?|passwd|credentials?|(?:api|access|private|secret)[_-]?keys?)$",
    re.IGNORECASE,
)
REMEDY = (
    "Remove it here and give it in the environment (HF_TOKEN, WANDB_API_KEY, AWS_ACCESS_KEY_ID ...); if the "
    "file has been shared, revoke it"
)
HIDDEN = "(hidden)"


def find_in_text(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and kind of everything in ``text`` that has the form of a known key."""
    for match in _BEFORE_AT.finditer(text):
        if _is_user(match[2]):
            yield match.start(), match.end(), "a URL with a password or a token"
    for match in _QUERY_KEY.finditer(text):
        yield match.start(), match.end(), "a URL with a key in its query"
    for match in _SECRET.finditer(text):
        yield match.start(), match.end(), list(_PATTERNS)[(match.lastindex or 1) - 1]


def _is_user(before: str) -> bool:
    """Return whether what stands between ``//`` and the last ``@`` of a URL is a user, a password or a token.

    Otherwise it is a host and the beginning of a path that has an ``@``.
    """
    head, slash, _ = before.partition("/")
    if not slash:
        return before != "git"  # as in ssh://git@host/path
    return ":" in head and not _HOST_AND_PORT.fullmatch(head)


def looks_secret(name: str, value: Any) -> str | None:
    """Return the kind of key that a value looks like, or None.

    The setting's own name counts: ``api_key: anything`` is a key, ``base_revision: <40 hex>`` is a commit.
    """
    if not isinstance(value, str) or not value.strip():
        return None
    if found := next(find_in_text(value), None):
        return found[2]
    if _URI_NAME.search(name) and not value.startswith(("s3:", "sqlite:", "file:")) and _BEFORE_AT.search(value):
        return "a URL with a password or a token"
    if _KEY_NAME.search(name):
        return "a key or a password"
    return "a key of 40 hexadecimal digits" if _HEX_KEY.search(value) and not _COMMIT_FIELD.search(name) else None


def find_in_values(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield path and kind of every value, and every name, in nested settings that looks like a key."""
    if isinstance(values, (dict, list)):
        for name, value in values.items() if isinstance(values, dict) else enumerate(values):
            if looks_secret("", name):
                yield (*path, HIDDEN), "a key in the place of a name"
            yield from find_in_values(value, (*path, str(name)))
    elif kind := looks_secret(path[-1] if path else "", values):
        yield path, kind


def redact(text: str) -> str:
    """Return ``text`` with everything that has the form of a key hidden."""
    return _HEX_KEY.sub(HIDDEN, without_credentials(text))


def without_credentials(text: str) -> str:
    """Return ``text`` as `redact` does, but with its commits, which look like some keys."""
    text = _BEFORE_AT.sub(lambda match: f"{match[1]}{HIDDEN}@" if _is_user(match[2]) else match[0], text)
    return _SECRET.sub(HIDDEN, _QUERY_KEY.sub(rf"\1{HIDDEN}", text))


def redacted(value: Any) -> Any:
    """Return JSON's kind of value with `redact` applied to every text in it."""
    if isinstance(value, dict):
        return {key: redacted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [redacted(inner) for inner in value]
    return redact(value) if isinstance(value, str) else value


def redact_uri(uri: str) -> str:
    """Return ``uri`` without user, password and query: safe to print and to store."""
    if uri.startswith("sqlite:"):
        return uri.partition("?")[0]
    scheme, slashes, rest = uri.partition("://")
    _, at, place = rest.rpartition("@")  # first: a password may hold ? and #, and a query that holds @ goes as well
    address, query, _ = place.partition("#")[0].partition("?")
    return f"{scheme}{slashes}{'***@' if at else ''}{address}{'?***' if query else ''}"
