"""What a sub-command is, and the few helpers that every family of them uses."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocrmem.config import RunConfig

Arguments = argparse.Namespace


@dataclass(frozen=True)
class Verb:
    """A sub-command.

    Attributes:
        help: one line, shown by ``ocrmem --help``.
        run: calls the library function; gets the parsed arguments and returns its JSON-able result.
        options: adds the verb's own arguments; the common ones are added for every verb.
    """

    help: str
    run: Callable[[Arguments], dict[str, Any]]
    options: Callable[[argparse.ArgumentParser], None] | None = None


def function(target: str) -> Callable[..., dict[str, Any]]:
    """Import ``package.module:function`` now, when its verb was asked for."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def run_config(arguments: Arguments) -> RunConfig:
    from ocrmem.config import RunConfig

    return RunConfig.load(arguments.config, arguments.set)


def with_config(target: str) -> Callable[[Arguments], dict[str, Any]]:
    """A verb whose library function takes the configuration and nothing else."""

    def run(arguments: Arguments) -> dict[str, Any]:
        config = run_config(arguments)  # before the import, which may take seconds: its faults are told at once
        return function(target)(config)

    return run


def positive(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value
