"""Write the tables of docs/configuration.md from the schema of the settings; the text above them stays.

make reference
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ocrmem.config.schema import RunSettings
from ocrmem.config.section import Section
from ocrmem.files import write_text

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
MARK = "<!-- From here on written by `make reference`, from the descriptions in ocrmem/config/schema.py. -->\n"
BOUNDS = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
TYPES = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "array": "list",
    "object": "names with text",
}


def page(text: str) -> str:
    """Return the page with its tables written again."""
    head, mark, _ = text.partition(MARK)
    if not mark:
        raise SystemExit(f"{PAGE} has no line {MARK!r}, below which the tables stand")
    return head + MARK + "".join(f"\n{line}" for line in tables(RunSettings())) + "\n"


def tables(section: Section, prefix: str = "") -> Iterator[str]:
    """Yield the lines of a section's table, then heading and table of each section in it; its values are defaults."""
    schema = type(section).model_json_schema()["properties"]
    inner: dict[str, tuple[Section, str]] = {}
    rows = []
    for name, info in type(section).model_fields.items():
        path, default = prefix + (info.alias or name), getattr(section, name)
        if isinstance(default, Section):
            inner[path] = default, info.description or type(default).__doc__ or ""
        elif info.description:
            meaning = " ".join(info.description.split())
            rows.append(f"| `{path}` | {allowed(schema[name])} | {json.dumps(default)} | {meaning} |")
        else:
            raise SystemExit(f"{path} has no description: write one below it")
    if rows:
        yield from ("| field | values | default | meaning |", "| --- | --- | --- | --- |", *rows, "")
    for path, (default, meaning) in inner.items():
        yield from (f"### {path}", "", " ".join(meaning.split()), "")
        yield from tables(default, f"{path}.")


def allowed(schema: dict[str, Any]) -> str:
    """Return the values that a field takes, in words."""
    if "anyOf" in schema:
        return " or ".join(allowed(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "null":
        return "null"
    bounds = [f"{word} {schema[key]:g}" for key, word in BOUNDS.items() if key in schema]
    kind = schema.get("format", TYPES[schema["type"]])
    return f"{kind} {' and '.join(bounds)}" if bounds else kind


if __name__ == "__main__":
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8")))
