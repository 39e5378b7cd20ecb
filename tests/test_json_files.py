"""Reading the JSON that ocrmem wrote: whatever became of a file, the error names it, the field and the verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ocrmem.errors import MissingInputError
from ocrmem.json_files import Evaluation, LastRegistration, read_json, with_sha256

FIGURES = {"loss": 1.0, "recall": 0.5}
EVALUATION: dict[str, Any] = {
    "adapter_sha256": "0" * 64,
    "samples": {"evaluated": 3},
    **dict.fromkeys(("memory", "no_memory", "shuffled"), FIGURES),
    "compression_ratio": 1.5,
    "more": ["kept"],
}


def refused(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(MissingInputError) as caught:
        read_json(path, Evaluation, made_by="evaluate")
    assert caught.value.problems[0].place == str(path)
    return str(caught.value)


def test_what_was_written_is_read_with_what_the_schema_does_not_name(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(with_sha256(EVALUATION)))
    found = read_json(path, Evaluation, made_by="evaluate")
    assert found["memory"]["recall"] == 0.5
    assert found["more"] == ["kept"]  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5_000, b"nul", b"\x00"],
    ids=["empty", "cut", "not UTF-8", "deep list", "deep object", "long number", "half a word", "zero"],
)
def test_what_is_not_json_is_named_with_the_verb(tmp_path: Path, content: bytes) -> None:
    said = refused(tmp_path / "evaluation.json", content)
    assert "is not valid JSON" in said
    assert "run `ocrmem evaluate` again" in said


@pytest.mark.parametrize("value", [None, 1, 1.5, "text", True, [], [EVALUATION]])
def test_another_value_in_the_place_of_the_object_is_named(tmp_path: Path, value: Any) -> None:
    assert "not an object" in refused(tmp_path / "evaluation.json", json.dumps(value))


@pytest.mark.parametrize("field", [name for name in EVALUATION if name != "more"])
@pytest.mark.parametrize("value", [None, "text", [], True, {}, {"evaluated": -1}, ...])
def test_another_value_in_the_place_of_a_field_names_the_field(tmp_path: Path, field: str, value: Any) -> None:
    changed = {**EVALUATION, field: value}
    if value is ...:
        del changed[field]
    said = refused(tmp_path / "evaluation.json", json.dumps(with_sha256(changed)))
    assert f"is not as ocrmem writes it ({field}" in said


def test_a_field_that_was_edited_is_found_whichever_it_is(tmp_path: Path) -> None:
    whole = with_sha256(EVALUATION)
    for name in EVALUATION:
        said = refused(tmp_path / "evaluation.json", json.dumps({**whole, name: 0}))
        assert "was changed or damaged: it has not the sha256 that it says" in said


def test_a_file_of_an_earlier_version_says_what_to_do(tmp_path: Path) -> None:
    said = refused(tmp_path / "evaluation.json", json.dumps(EVALUATION))
    assert "has no sha256 of itself: an earlier ocrmem wrote it" in said
    assert "run `ocrmem evaluate` again" in said


def test_a_directory_and_a_file_that_is_not_there_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"cannot be read \(Is a directory\)"):
        read_json(tmp_path, Evaluation, made_by="evaluate")
    with pytest.raises(MissingInputError, match=r"is not there\. Run `ocrmem evaluate` first"):
        read_json(tmp_path / "evaluation.json", Evaluation, made_by="evaluate")


def test_a_schema_without_a_hash_asks_for_none(tmp_path: Path) -> None:
    path = tmp_path / "registration.json"
    path.write_text(json.dumps({"package_sha256": "1", "wandb": None}))
    assert read_json(path, LastRegistration, made_by="register")["wandb"] is None
