"""The box: its adapters are found by name, and are whole packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocrmem import boxed as box
from ocrmem.boxed import boxed, boxed_names
from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError
from ocrmem.package import verify_package
from ocrmem.registry import resolve_adapter


def test_what_is_in_the_box_is_as_it_was_packed() -> None:
    assert boxed_names() == ["english", "english-lora"]
    for name in boxed_names():
        verify_package(boxed(name))


def test_a_name_in_the_box_is_an_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").touch()
    monkeypatch.setattr(box, "_BOX", tmp_path)
    assert resolve_adapter("other", RunConfig()) == boxed("other") == tmp_path / "other"
    with pytest.raises(ConfigError, match="'nope' is not in the box, which holds other"):
        boxed("nope")
    with pytest.raises(ConfigError, match=r"'nope' is not a directory.*in the box \(other\)"):
        resolve_adapter("nope", RunConfig())
