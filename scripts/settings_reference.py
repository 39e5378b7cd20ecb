"""Write what docs take from the code: settings, commands, errors. The text around them stays.

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

from ocrmem import errors
from ocrmem.cli import build_parser
from ocrmem.config.schema import RunSettings
from ocrmem.config.section import Section
from ocrmem.files import write_text
from ocrmem.workflow.compile_settings import PipelineSettings

DOCS = Path(__file__).resolve().parent.parent / "docs"
WRITTEN = re.compile("(<!-- Written by `make reference`.*?-->\n).*(<!-- Until here. -->\n)", re.DOTALL)


def page(name: str) -> str:
    """Return a page of docs with what the code says written again."""
    written = "".join(f"{line}\n" for line in PAGES[name]())
    text, found = WRITTEN.subn(lambda marks: f"{marks[1]}\n{written}{marks[2]}", read(name))
    if found != 1:
        raise SystemExit(f"docs/{name} does not have the two comments between which that stands")
    return text


def read(name: str) -> str:
    """Return a page of docs as it is."""
    return (DOCS / name).read_text(encoding="utf-8")


def settings(section: Section, prefix: str = "") -> Iterator[str]:
    """Yield a line for each field of a section, then heading and lines of each section in it; its values are defaults.

    A section within those is a field of its section, or stands for its fields where it has no text of its own.
    """
    yield from (*_fields(section, prefix), "")
    for name, info in type(section).model_fields.items():
        inner, path = getattr(section, name), info.alias or name
        if isinstance(inner, Section) and not prefix:
            yield from (f"### {path}", "", " ".join((type(inner).__doc__ or "").split()), "")
            yield from settings(inner, f"{path}.")


def _fields(section: Section, prefix: str) -> Iterator[str]:
    schema = type(section).model_json_schema()["properties"]
    for name, info in type(section).model_fields.items():
        path, default = prefix + (info.alias or name), getattr(section, name)
        if isinstance(default, Section) and not info.description:
            yield from _fields(default, f"{path}.") if prefix else ()
        elif info.description:
            value = default.model_dump() if isinstance(default, Section) else default
            meaning = " ".join([*info.description.split(), *allowed(schema[name], info.description, default)])
            yield f"- `{path}: {json.dumps(value)}` {meaning}"
        else:
            raise SystemExit(f"{path} has no description: write one below it")


def allowed(schema: dict[str, Any], description: str, default: Any) -> Iterator[str]:
    """Yield, as a sentence, the values that a field takes, where neither default nor description says it."""
    for choice in schema.get("anyOf", [schema]):
        values = [f"`{value}`" for value in choice.get("enum", [])]
        if any(value not in description for value in values):
            yield f"One of {', '.join(values)}."
        if choice.get("type") not in ("integer", "number") or "exclusiveMinimum" in choice:
            continue
        least, most = choice.get("minimum"), choice.get("maximum", choice.get("exclusiveMaximum"))
        if most is not None:
            yield f"{least:g} to {'below ' if 'exclusiveMaximum' in choice else ''}{most:g}."
        elif default != 0:
            yield "Any number." if least is None else f"{least:g} or more."


def reference() -> Iterator[str]:
    """Yield the lines of exit codes, commands with their options, and errors."""
    yield from ("## Exit codes", "", "| exit code | meaning |", "| --- | --- |")
    yield from (f"| {code.value} | {code.meaning} |" for code in errors.Exit)
    yield ""
    yield from ("## Commands", "")
    for name, command in _commands().items():
        yield from (f"### ocrmem {name}", "", str(command.description), "")
        yield from (*(f"- {shown}{meaning and ': '}{meaning}" for shown, meaning in _options(command)), "")
    yield from ("## Errors", "", "In `ocrmem.errors`, with the exit code:", "")
    for kind in vars(errors).values():
        if inspect.isclass(kind) and issubclass(kind, errors.OcrMemError):
            yield f"- `{kind.__name__}`, {kind.exit_code}: {_first_paragraph(kind)}"
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
            yield f"`{shown}`", " ".join((action.help or "").split())


def _first_paragraph(kind: type) -> str:
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())


COMMON = {"--help", "--config", "--set", "--quiet", "--json"}
PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "configuration.md": partial(settings, RunSettings()),
    "pipelines.md": partial(settings, PipelineSettings()),
    "reference.md": reference,
}

if __name__ == "__main__":
    for name in PAGES:
        write_text(DOCS / name, page(name))
