"""docs/configuration.md is what the schema says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "settings_reference.py"


def test_the_documentation_is_what_the_schema_says() -> None:
    spec = importlib.util.spec_from_file_location("settings_reference", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = script.PAGE.read_text(encoding="utf-8")
    assert text == script.page(text), "run `make reference`"
