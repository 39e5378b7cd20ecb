"""A rule: a check that joins fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ocrmem.config.schema import RunSettings, field_paths

Fault = tuple[str, str, str]  # field, message, remedy
Check = Callable[[RunSettings], Iterator[Fault]]

FIELDS = frozenset(".".join(path) for path in field_paths())


class Rule(NamedTuple):
    """A check and the fields that it reads, by their names in params.yaml; skipped while one of them is faulty."""

    fields: tuple[str, ...]
    check: Check


RULES: list[Rule] = []


def rule(*fields: str) -> Callable[[Check], Check]:
    """Register a check of these fields; a name that is not a field, or a section, is an error at import."""
    if unknown := sorted(set(fields) - FIELDS):
        raise LookupError(f"a rule names what is not a field of params.yaml: {', '.join(unknown)}")

    def register(check: Check) -> Check:
        RULES.append(Rule(fields, check))
        return check

    return register
