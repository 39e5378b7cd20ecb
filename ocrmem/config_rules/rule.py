"""What a cross-field rule is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ocrmem.config import RunConfig

Fault = tuple[str, str, str]  # field by its Python name, message, remedy
Check = Callable[[RunConfig], Iterator[Fault]]


@dataclass(frozen=True)
class Rule:
    """A check over some fields that yields its faults; skipped while one of the fields is faulty."""

    fields: tuple[str, ...]
    check: Check


@dataclass
class Rules:
    """The rules of a module, in the order in which they are written."""

    all: list[Rule] = field(default_factory=list)

    def __call__(self, *fields: str) -> Callable[[Check], Check]:
        """Decorator: register a check that reads ``fields``."""

        def register(check: Check) -> Check:
            self.all.append(Rule(fields, check))
            return check

        return register
