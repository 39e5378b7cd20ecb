"""The errors a person can meet, each ending with what to do.

A problem names a place (``params.yaml: train.max_steps`` or ``data/train.jsonl:17``), says what is wrong
there and what to do about it. Errors carry one or many problems; the CLI prints them all and exits with
the error's ``exit_code``: 1 when a check failed, 2 when the usage or the configuration is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. Message and remedy are sentences without a full stop."""

    place: str  # a field path, ``file:line``, or the name of a step
    message: str  # what is wrong there
    remedy: str  # what the reader should do

    def __str__(self) -> str:
        return f"{self.place}: {self.message}. {self.remedy}."

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


class OcrMemError(Exception):
    """Base of every error that ocrmem raises on purpose; its message has one line for each problem."""

    exit_code = 1

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

    exit_code = 2


class BusyError(ConfigError):
    """Another process writes to the same output; nothing was started."""


class DataError(OcrMemError):
    """Conversations, or files made from them, cannot be used as they are."""


class MissingInputError(OcrMemError):
    """The output of an earlier verb is missing."""

    exit_code = 2


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

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


def shown(value: Any) -> str:
    """Return a value of someone's data as a message shows it: JSON in ASCII, cut to 60 characters."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error without its full stop, or its class name if it has no text."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
