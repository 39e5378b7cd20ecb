"""Write the tables of docs/configuration.md and docs/pipelines.md from the settings; the text around them stays.

make reference
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ocrmem.config.schema import RunSettings
from ocrmem.config.section import Section
from ocrmem.files import write_text
from ocrmem.workflow.compile_settings import PipelineSettings

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES: dict[str, Section] = {"configuration.md": RunSettings(), "pipelines.md": PipelineSettings()}
TABLES = re.compile("(<!-- Written by `make reference`.*?-->\n).*(<!-- Until here. -->\n)", re.DOTALL)
BOUNDS = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
TYPES = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "array": "list",
    "object": "names with text",
}


def page(name: str) -> str:
    """Return a page of docs with its tables written again."""
    written = "".join(f"{line}\n" for line in tables(PAGES[name]))
    text, found = TABLES.subn(lambda marks: f"{marks[1]}\n{written}{marks[2]}", read(name))
    if found != 1:
        raise SystemExit(f"docs/{name} does not have the two comments between which its tables stand")
    return text


def read(name: str) -> str:
    """Return a page of docs as it is."""
    return (DOCS / name).read_text(encoding="utf-8")


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
    if "$ref" in schema:
        return "section"
    if schema["type"] == "null":
        return "null"
    bounds = [f"{word} {schema[key]:g}" for key, word in BOUNDS.items() if key in schema]
    kind = schema.get("format", TYPES[schema["type"]])
    return f"{kind} {' and '.join(bounds)}" if bounds else kind


if __name__ == "__main__":
    for name in PAGES:
        write_text(DOCS / name, page(name))
