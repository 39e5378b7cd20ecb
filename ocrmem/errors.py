"""The errors a person can meet, each ending with what to do.

A problem names a place (``params.yaml: train.max_steps`` or ``data/train.jsonl:17``), says what is wrong
there and what to do about it. Errors carry one or many problems; the CLI prints them all and exits with
the error's ``exit_code``, one of `Exit`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from operator import itemgetter
from typing import Any, Self

from ocrmem.secrets import without_credentials

_SHOWN_PLACES = 5
# What differs between two faults of one kind: numbers, quoted texts and lists of them.
_SPECIFIC = re.compile(r"""(?:(?:"(?:[^"\\]|\\.)*"|'[^']*')(?:, )?)+|\d+""")


class Exit(IntEnum):
    """The exit codes of every verb, and what each means; docs/reference.md has the same table."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Self:
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DONE = 0, "done"
    FAILED = 1, "a check said no, the work failed, or data or a model cannot be used"
    USAGE = 2, "usage, settings or places are wrong, or an input is missing; nothing was started"
    PREEMPTED = 75, "training was stopped and has saved a checkpoint, from which --resume goes on"  # EX_TEMPFAIL
    INTERRUPTED = 130, "interrupted (Ctrl-C); the verb can be run again"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. Message and remedy are sentences without a full stop."""

    place: str  # a field path, ``file:line``, or the name of a step
    message: str  # what is wrong there
    remedy: str  # what the reader should do
    count: int = 1  # places that have it
    others: tuple[str, ...] = ()  # the first of them, after ``place``

    def __post_init__(self) -> None:
        """Hide keys: texts of other libraries quote addresses, and problems reach logs, records and reports."""
        for name in ("place", "message", "remedy"):
            object.__setattr__(self, name, without_credentials(getattr(self, name)))

    def __str__(self) -> str:
        place, left = self.place, self.count - 1 - len(self.others)
        if self.others:
            more = f" and {left:,} more" if left else ""
            place = f"{place} and {self.count - 1:,} others like it ({', '.join(self.others)}{more})"
        return f"{place}: {self.message}. {self.remedy}."

    def replaced(self, old: str, new: str) -> Problem:
        """Return the problem with one text in the place of another throughout."""
        place, message, remedy, *others = (
            text.replace(old, new) for text in (self.place, self.message, self.remedy, *self.others)
        )
        return Problem(place, message, remedy, self.count, tuple(others))

    def as_dict(self) -> dict[str, Any]:
        values = asdict(self)
        if self.count == 1:
            del values["count"], values["others"]
        return values


class ProblemList:
    """Problems in their order, in bounded memory.

    What is said of more than five places in the same words, numbers and quoted texts aside, is one problem with a count
    and its first five places; the text is the first one's.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, list[tuple[int, Problem]]] = {}  # the first few of each, with their numbers
        self._counts: Counter[str] = Counter()
        self._added = 0

    def add(self, problem: Problem) -> None:
        kind = _SPECIFIC.sub("", problem.message)
        first = self._kinds.setdefault(kind, [])
        if len(first) < _SHOWN_PLACES:
            first.append((self._added, problem))
        self._counts[kind] += 1
        self._added += 1

    def __len__(self) -> int:
        return self._added

    def listed(self) -> list[Problem]:
        """Return the problems in their order, those that repeat told once."""
        told: list[tuple[int, Problem]] = []
        for kind, first in self._kinds.items():
            if (count := self._counts[kind]) <= _SHOWN_PLACES:
                told += first
            else:
                others = tuple(problem.place for _, problem in first[1:])
                told.append((first[0][0], replace(first[0][1], count=count, others=others)))
        return [problem for _, problem in sorted(told, key=itemgetter(0))]


class OcrMemError(Exception):
    """Base of every error that ocrmem raises on purpose; its message has one line for each problem."""

    exit_code: int = Exit.FAILED

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[OcrMemError], tuple[tuple[Problem, ...]]]:
        """Keep the problems when an error is pickled by a worker process."""
        return type(self), (self.problems,)

    @classmethod
    def of(cls, place: str, message: str, remedy: str) -> Self:
        """Return an error of one problem."""
        return cls(Problem(place, message, remedy))


class ConfigError(OcrMemError):
    """Settings or arguments are wrong; nothing was started."""

    exit_code = Exit.USAGE


def wrong(where: str, takes: str, given: Any, remedy: str) -> ConfigError:
    """Return the error of an argument of the wrong kind.

    Args:
        where: the function, as it is called.
        takes: what it takes.
    """
    text = repr(given)
    if not isinstance(given, str) and (len(text) > 60 or "\n" in text):
        text = f"something of type {type(given).__name__}"
    return ConfigError.of(
        where, f"takes {takes}, and was given {text[:57] + '...' if len(text) > 60 else text}", remedy
    )


class UsageError(ConfigError):
    """A command line cannot be read, or its options contradict each other; the verb's usage is shown with it."""

    usage = ""  # where the verb is not known to who shows it


class BusyError(ConfigError):
    """Another process writes to the same output; nothing was started."""


class DiskError(OcrMemError):
    """The system refuses to read or write a file: the disk is full or read-only, or permission is denied."""

    exit_code = Exit.USAGE


class DataError(OcrMemError):
    """Conversations, or files made from them, cannot be used as they are."""


class MissingInputError(OcrMemError):
    """The output of an earlier verb is missing."""

    exit_code = Exit.USAGE


class ModelError(OcrMemError):
    """A model, an encoder or an adapter does not load, or does not fit the others."""


class CheckFailed(OcrMemError):
    """A check failed: quality, smoke, gate."""


class TrainingError(OcrMemError):
    """Training failed: non-finite loss, proj unchanged, frozen weights changed."""


class ClusterError(OcrMemError):
    """The Kubernetes API or the cluster is not in the state that a run needs."""


class PreemptedError(TrainingError):
    """Training was stopped from outside and can resume from its last checkpoint."""

    exit_code = Exit.PREEMPTED


def shown(value: Any) -> str:
    """Return a value of someone's data as a message shows it: JSON in ASCII, cut to 60 characters."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error without its full stop, or its class name if it has no text."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
