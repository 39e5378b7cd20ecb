"""The tables of settings in docs are what their classes say."""

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
    for name in script.PAGES:
        assert script.read(name) == script.page(name), "run `make reference`"
