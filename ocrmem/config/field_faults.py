"""Pydantic's errors as problems: the field, what is wrong with its value, what would be right."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError

from ocrmem.config.schema import FieldPath, field_paths
from ocrmem.config.section import Section
from ocrmem.config.settings_file import RawSettings
from ocrmem.errors import Problem
from ocrmem.secrets import HIDDEN, looks_secret, redact

S = TypeVar("S", bound=Section)
_WANTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text (put quotes around it)",
    "model_type": "a section with fields below it",
    "model_attributes_type": "a section with fields below it",
    "dict_type": "a section with fields below it",
    "list_type": "a list, such as [a, b]",
}
_BOUNDS = {
    "greater_than": ("gt", "above {}"),
    "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "below {}"),
    "less_than_equal": ("le", "at most {}"),
}


def check_fields(model: type[S], settings: RawSettings) -> tuple[S, list[Problem], set[FieldPath]]:
    """Check every field by itself.

    Returns:
        the settings with faulty fields at their defaults, so that rules over the sound ones can still be
        checked; the problems; and the paths of the faulty fields.
    """
    known = list(field_paths(model))
    values = _without_empty_sections(settings.values, known)
    problems: list[Problem] = []
    bad: set[FieldPath] = set()
    try:
        config = model.model_validate(values)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            path = tuple(str(part) for part in fault["loc"])
            bad.add(path)
            problems.append(_problem(settings, path, fault, known))
        for path in bad:
            _remove(values, path)
        config = model.model_validate(values)
    return config, problems, bad


def _problem(settings: RawSettings, path: FieldPath, fault: Any, known: Sequence[FieldPath]) -> Problem:
    place, kind, value = settings.place_of(path), fault["type"], fault["input"]
    if kind == "extra_forbidden":
        what = "section" if len(path) == 1 and isinstance(value, dict) else "field"
        return Problem(place, f"is an unknown {what}", _nearest(path, known))
    said = f"is {_shown(path, value)}"
    if kind == "literal_error":
        return Problem(place, said, f"Use one of {fault['ctx']['expected'].replace(' or ', ', ')}")
    if kind in _BOUNDS:
        key, text = _BOUNDS[kind]
        return Problem(place, said, f"Give a number {text.format(fault['ctx'][key])}")
    # The message of a type of ocrmem's own is its remedy.
    return Problem(place, said, f"Give {_WANTED[kind]}" if kind in _WANTED else redact(fault["msg"]))


def _nearest(path: FieldPath, known: Sequence[FieldPath]) -> str:
    siblings = [other[-1] for other in known if other[:-1] == path[:-1]]
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
    for part in path[:-1]:
        inner = values.get(part) if isinstance(values, dict) else None
        if isinstance(inner, list):  # an item cannot be left to its default, so the list is
            values.pop(part)
            return
        values = inner
    if isinstance(values, dict):
        values.pop(path[-1], None)
