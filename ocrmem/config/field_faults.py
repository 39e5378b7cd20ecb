"""Pydantic's errors as problems: the field, what is wrong with its value, what would be right."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError

from ocrmem.config.old_names import OLD_NAMES, WITHOUT_SETTING
from ocrmem.config.schema import ITEM, FieldPath, field_paths
from ocrmem.config.section import Section
from ocrmem.config.settings_file import RawSettings
from ocrmem.errors import Problem
from ocrmem.secrets import HIDDEN, looks_secret, redact

S = TypeVar("S", bound=Section)
# By the first word of pydantic's name for an error.
_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text (put quotes around it)",
    "model": "a section with fields below it",
    "dict": "a section with fields below it",
    "list": "a list, such as [a, b]",
    "tuple": "a list, such as [a, b]",
}
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def check_fields(model: type[S], settings: RawSettings) -> tuple[S, list[Problem], set[FieldPath]]:
    """Check every field by itself.

    Returns:
        the settings with faulty fields at their defaults, so that rules over the sound ones can still be
        checked; the problems; and the paths of the faulty fields.
    """
    known = list(field_paths(model))
    values = _without_empty_sections(settings.values, known)
    try:
        return _read(model, values), [], set()
    except ValidationError as error:
        faults = [(tuple(map(str, fault["loc"])), fault) for fault in error.errors(include_url=False)]
    for path, _ in faults:
        _remove(values, path)
    problems = [_problem(settings, path, fault, known) for path, fault in faults]
    return _read(model, values), problems, {path for path, _ in faults}


def _read(model: type[S], values: dict[str, Any]) -> S:
    """Fill a model past its own constructor: `RunConfig`'s raises what is made of the errors here."""
    read = model.__new__(model)
    Section.__init__(read, **values)
    return read


def _problem(settings: RawSettings, path: FieldPath, fault: Any, known: Sequence[FieldPath]) -> Problem:
    place, kind, value = settings.place_of(path), fault["type"], fault["input"]
    if kind == "extra_forbidden":
        what = "section" if len(path) == 1 and isinstance(value, dict) else "field"
        return Problem(place, f"is an unknown {what}", _nearest(path, known))
    remedy = redact(fault["msg"])  # of a type of ocrmem's own it is the remedy
    if kind == "literal_error":
        remedy = f"Use one of {fault['ctx']['expected'].replace(' or ', ', ')}"
    elif wanted := _WANTED.get(kind.partition("_")[0]):
        remedy = f"Give {wanted}"
    for name, bound in fault.get("ctx", {}).items():
        if name in _BOUNDS:
            remedy = f"Give a number {_BOUNDS[name]} {bound}"
    return Problem(place, f"is {_shown(path, value)}", remedy)


def _nearest(path: FieldPath, known: Sequence[FieldPath]) -> str:
    if here := OLD_NAMES.get(path[-1]):
        return f"Here it is {here}"
    if holds := WITHOUT_SETTING.get(path[-1]):
        return f"Remove it: {holds}"
    around = tuple(ITEM if part.isdigit() else part for part in path[:-1])
    siblings = [other[-1] for other in known if other[:-1] == around]
    if near := get_close_matches(path[-1].lower(), siblings, 1, cutoff=0.6):
        return f"Did you mean {'.'.join((*path[:-1], near[0]))}? Rename it, or remove it"
    same_name = [other for other in known if other[-1] == path[-1]]
    if not same_name:
        by_name = {other[-1]: other for other in known}
        same_name = [by_name[name] for name in get_close_matches(path[-1].lower(), by_name, 1, cutoff=0.75)]
    if same_name:
        names = " or ".join(".".join(other) for other in same_name)
        return f"Did you mean {names}? Move it there, or remove it"
    return f"Remove it; known here are {', '.join(siblings) or 'no fields'}"


def _shown(path: Sequence[str], value: Any) -> str:
    if isinstance(value, (dict, list)):
        return f"a {'section' if isinstance(value, dict) else 'list'}"
    if value is None or (isinstance(value, str) and not value.strip()):
        return "empty"
    if looks_secret(path[-1], value):
        return HIDDEN
    if isinstance(value, int) and value.bit_length() > 256:  # Python writes no number of thousands of digits
        return "a number of hundreds of digits" if value.bit_length() < 4096 else "a number of thousands of digits"
    text = str(value).lower() if isinstance(value, bool) else repr(value)  # as YAML writes it
    return text if len(text) <= 60 else text[:57] + "..."


def _without_empty_sections(values: dict[str, Any], known: Sequence[FieldPath]) -> dict[str, Any]:
    """Return a deep copy; a section whose fields are all commented out reads as null and means its defaults."""
    sections = {path[0] for path in known if len(path) > 1}
    return {key: _copy(value) for key, value in values.items() if not (value is None and key in sections)}


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _remove(values: Any, path: FieldPath) -> None:
    if isinstance(values, dict):
        inner = values.get(path[0])
        if len(path) == 1 or isinstance(inner, list):  # an item cannot be left to its default, so the list is
            values.pop(path[0], None)
        else:
            _remove(inner, path[1:])
