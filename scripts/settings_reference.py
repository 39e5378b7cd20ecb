"""Write what docs take from the code: settings, commands, errors, files. The text around the tables stays.

make reference
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ocrmem import errors, json_files
from ocrmem.cli import build_parser
from ocrmem.config.schema import RunSettings
from ocrmem.config.section import Section
from ocrmem.files import write_text
from ocrmem.steps import COMMANDS
from ocrmem.workflow.compile_settings import PipelineSettings

DOCS = Path(__file__).resolve().parent.parent / "docs"
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
    written = "".join(f"{line}\n" for line in PAGES[name]())
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


def reference() -> Iterator[str]:
    """Yield the lines of exit codes, commands with their options, errors, and files with their fields."""
    yield from ("## Exit codes", "", "| exit code | meaning |", "| --- | --- |")
    yield from (f"| {code.value} | {code.meaning} |" for code in errors.Exit)
    yield ""
    yield from ("## Commands", "")
    for name, command in _commands().items():
        yield from (f"### ocrmem {name}", "", str(command.description), "")
        if rows := [f"| {shown} | {meaning} |" for shown, meaning in _options(command)]:
            yield from ("| option | meaning |", "| --- | --- |", *rows, "")
        if name in COMMANDS:
            yield from (f"    {COMMANDS[name].example}", "")
    yield from ("## Errors", "", "| class of `ocrmem.errors` | exit code | when |", "| --- | --- | --- |")
    for kind in vars(errors).values():
        if inspect.isclass(kind) and issubclass(kind, errors.OcrMemError):
            yield f"| `{kind.__name__}` | {kind.exit_code} | {_first_paragraph(kind)} |"
    yield from ("", "## Files", "", "| what | fields that are checked when it is read |", "| --- | --- |")
    for kind in vars(json_files).values():
        fields = getattr(kind, "__annotations__", {}) if inspect.isclass(kind) else {}
        if json_files.SHA256 in fields and len(fields) > 1:
            yield f"| {_first_paragraph(kind).rstrip('.')} | {', '.join(f'`{name}`' for name in fields)} |"
    yield ""


def _commands() -> dict[str, argparse.ArgumentParser]:
    [commands] = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(commands.choices)


def _options(command: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Yield form and meaning of each option but those that all have, then those of each command that it has."""
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from ((f"`{name}`: {shown}", meaning) for shown, meaning in _options(inner))
        elif not {*action.option_strings} & COMMON:
            value = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest)
            shown = " ".join([*action.option_strings[:1], *([] if action.nargs == 0 else [str(value)])])
            yield f"`{shown}`".replace("|", "\\|"), " ".join((action.help or "").split()).replace("|", "\\|")


def _first_paragraph(kind: type) -> str:
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())


COMMON = {"--help", "--config", "--set", "--quiet", "--json"}
PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "configuration.md": partial(tables, RunSettings()),
    "pipelines.md": partial(tables, PipelineSettings()),
    "reference.md": reference,
}

if __name__ == "__main__":
    for name in PAGES:
        write_text(DOCS / name, page(name))
