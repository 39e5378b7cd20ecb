"""What looks like a key is never shown."""

from __future__ import annotations

import pytest

from ocrmem.secrets import find_in_text, redact, redact_uri


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("sqlite:///registry/mlflow.db", "sqlite:///registry/mlflow.db"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("http://mlflow.example.org:5000", "http://mlflow.example.org:5000"),
        ("https://me:hunter2@mlflow.example.org/x", "https://***@mlflow.example.org/x"),
        ("https://mlflow.example.org/x?token=hunter2", "https://mlflow.example.org/x?***"),
        ("postgresql://me:hunter2@db/mlflow", "postgresql://***@db/mlflow"),
    ],
)
def test_a_password_in_a_uri_is_never_shown(uri: str, shown: str) -> None:
    assert redact_uri(uri) == shown


def test_redacted_text_keeps_what_is_not_a_key() -> None:
    aws, hexadecimal = "AKIA" + "ABCDEFGH12345678", "0123456789abcdef" * 2 + "01234567"
    assert redact(f"use {aws} or {hexadecimal} now") == "use (hidden) or (hidden) now"
    assert [kind for *_, kind in find_in_text("nothing here")] == []
