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
    return head + MARK + "".join(f"\n{line}" for line in tables(RunSettings)) + "\n"


def tables(model: type[Section], prefix: str = "") -> Iterator[str]:
    """Yield the lines of a section's heading and table, then those of the sections in it."""
    schema = model.model_json_schema()["properties"]
    inner: dict[str, type[Section]] = {}
    rows = []
    for name, info in model.model_fields.items():
        path = prefix + (info.alias or name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            inner[path] = info.annotation
        else:
            values, default = allowed(schema[name]), json.dumps(info.get_default(call_default_factory=True))
            rows.append(f"| `{path}` | {values} | {default} | {description(model, name)} |")
    if rows:
        yield from ("| field | values | default | meaning |", "| --- | --- | --- | --- |", *rows, "")
    for path, section in inner.items():
        yield from (f"### {path}", "", " ".join((section.__doc__ or "").split()), "")
        yield from tables(section, f"{path}.")


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


def description(model: type[Section], name: str) -> str:
    """Return what a field means; a volume that changes a default means what any volume does."""
    owners = [base for base in model.__mro__ if issubclass(base, Section) and name in base.model_fields]
    told = next((text for base in owners if (text := base.model_fields[name].description)), None)
    if told is None:
        raise SystemExit(f"{model.__name__}.{name} has no description: write one below it")
    return " ".join(told.split())


if __name__ == "__main__":
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8")))
