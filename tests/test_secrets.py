"""What looks like a key is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocrmem.cli import main
from ocrmem.errors import Problem
from ocrmem.secrets import find_in_text, looks_secret, redact, redact_uri, without_credentials
from ocrmem.steps import COMMANDS


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("sqlite:///registry/mlflow.db", "sqlite:///registry/mlflow.db"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("http://mlflow.example.org:5000", "http://mlflow.example.org:5000"),
        ("https://me:hunter2@mlflow.example.org/x", "https://***@mlflow.example.org/x"),
        ("https://me:hun/ter2@mlflow.example.org/x", "https://***@mlflow.example.org/x"),
        ("https://me:hun?te#r2@mlflow.example.org/x", "https://***@mlflow.example.org/x"),
        ("https://me:hun@ter2@mlflow.example.org/x", "https://***@mlflow.example.org/x"),
        ("kubeflow+http://hunter2@registry:8080", "kubeflow+http://***@registry:8080"),
        ("https://mlflow.example.org/x?token=hunter2", "https://mlflow.example.org/x?***"),
        ("https://mlflow.example.org?who=me@hunter2#x", "https://***@hunter2"),
        ("postgresql://me:hunter2@db/mlflow", "postgresql://***@db/mlflow"),
    ],
)
def test_a_password_in_a_uri_is_never_shown(uri: str, shown: str) -> None:
    assert redact_uri(uri) == shown


# A text, what is shown of it, and whether settings with it are refused.
URLS = [
    ("http://me:hun/ter2@host:5000/x", "http://(hidden)@host:5000/x", True),
    ("http://me:hun@ter2@host/x", "http://(hidden)@host/x", True),
    ("http://hunter2@host", "http://(hidden)@host", True),
    ("s3://AKID:hunter2@bucket/x", "s3://(hidden)@bucket/x", True),
    ("https://a.example.org/c?sv=1&sig=hunter2%2B&x=1", "https://a.example.org/c?sv=1&sig=(hidden)&x=1", True),
    ("https://a.example.org/?X-Amz-Signature=hunter2", "https://a.example.org/?X-Amz-Signature=(hidden)", True),
    ("https://a.example.org/?access_token=hunter2#x", "https://a.example.org/?access_token=(hidden)#x", True),
    ("/c?api_key=hunter2 was refused", "/c?api_key=(hidden) was refused", True),
    ("https://medium.com/@me/about", "https://medium.com/@me/about", False),
    ("https://host.example.org:5000/a@b", "https://host.example.org:5000/a@b", False),
    ("git+ssh://git@github.com/a/b", "git+ssh://git@github.com/a/b", False),
    ("models:/adapter@champion", "models:/adapter@champion", False),
    ("s3://bucket/a@b", "s3://bucket/a@b", False),
    ("https://a.example.org/?max_tokens=5&monkey=2&keyboard=3", None, False),
]


@pytest.mark.parametrize(("text", "shown", "refused"), URLS, ids=[text for text, *_ in URLS])
def test_keys_in_urls_are_found_and_other_urls_are_left_alone(text: str, shown: str | None, refused: bool) -> None:
    assert without_credentials(text) == (shown or text)
    assert (looks_secret("note", text) is not None) is refused
    assert "hunter2" not in str(Problem("registry", f"does not answer at {text}", "Try again"))


@pytest.mark.parametrize("uri", ["http://hun/ter2@host", "https://host.example.org:5000/a@b"])
def test_an_address_among_the_settings_has_nothing_before_an_at(uri: str) -> None:
    assert looks_secret("uri", uri)


PLANTED = [
    ("register.uri", "http://me:hun/ter2word@registry"),
    ("register.uri", "kubeflow+http://hunter2word@registry:8080"),
    ("version.endpoint_url", "https://minio.example.org?sig=hunter2word"),
    ("data.path", "s3://AKID:hunter2word@bucket/x"),
    ("tracking.project", "https://me:hunter2word@wandb.example.org"),
]


@pytest.mark.parametrize("verb", [name for name, step in COMMANDS.items() if step.takes_config])
@pytest.mark.parametrize("given", ["file", "comment", "option"])
def test_no_verb_takes_a_key_in_its_settings_or_shows_it_anywhere(
    verb: str, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    more = {"generate": ["--conversation", "conversation.jsonl"], "prose": ["--output", "out"]}.get(verb, [])
    settings, options = [], []
    for name, value in PLANTED:
        section, _, field = name.partition(".")
        settings.append({"file": f"{section}: {{{field}: '{value}'}}", "comment": f"# {value}"}.get(given, ""))
        options.append([f"--set={name}={value}"] if given == "option" else [])
    for line, option in zip(settings, options, strict=True):
        (tmp_path / "params.yaml").write_text(f"{line}\n", encoding="utf-8")
        assert main([verb, *more, *option]) == 2, line
        out, err = capfd.readouterr()
        assert "looks like" in err
        assert "hunter2word" not in out + err
    (tmp_path / "params.yaml").unlink()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2word" in path.read_bytes()]


def test_redacted_text_keeps_what_is_not_a_key() -> None:
    aws, hexadecimal = "AKIA" + "ABCDEFGH12345678", "0123456789abcdef" * 2 + "01234567"
    assert redact(f"use {aws} or {hexadecimal} now") == "use (hidden) or (hidden) now"
    assert [kind for *_, kind in find_in_text("nothing here")] == []
