"""What docs take from the code is what the code says: settings, commands, errors, JSON schemas."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest

from ocrmem.cli import main

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = (ROOT / "docs" / "schemas.json").read_text(encoding="utf-8")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documentation_is_what_the_schema_says() -> None:
    written = script("settings_reference")
    for name in written.PAGES:
        assert written.read(name) == written.page(name), "run `make reference`"


def test_the_schemas_are_what_the_types_say() -> None:
    assert script("schemas").text() == SCHEMAS, "run `make reference`"
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMAS))


def test_every_typed_result_has_a_schema() -> None:
    code = (path.read_text(encoding="utf-8") for path in (ROOT / "ocrmem").rglob("*.py"))
    results = {name for text in code for name in re.findall(r"^class (\w+Result)\(", text, re.MULTILINE)}
    assert len(results) > 20
    assert [name for name in sorted(results) if f'{name}": {{' not in SCHEMAS] == []


def test_what_verbs_print_and_leave_fits_its_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads(SCHEMAS)
    data = tmp_path / "data"
    for name, words, code in (
        ("synth --json", ["synth", "--output", str(data), "--count", "2", "--eval-count", "1"], 0),
        ("--json, exit code above 0", ["validate", "--set", "train.max_step=1"], 2),
    ):
        assert main([*words, "--json"]) == code
        schema["$ref"] = "#/properties/" + name
        jsonschema.validate(json.loads(capsys.readouterr().out), schema)
    package = json.loads((ROOT / "ocrmem" / "boxed" / "english" / "provenance.json").read_bytes())
    jsonschema.validate(package, schema | {"$ref": "#/properties/registry~1package~1provenance.json"})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"ok": False}, schema)
