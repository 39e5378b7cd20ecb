"""What a library function is given in place of what it takes: one error, which says how to write it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Any

from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError


def wrong(where: str, takes: str, given: Any, remedy: str) -> ConfigError:
    """Return the error of an argument of the wrong kind.

    Args:
        where: the function, as it is called.
        takes: what it takes.
    """
    text = repr(given)
    return ConfigError.of(
        where, f"takes {takes}, and was given {text if len(text) <= 60 else text[:57] + '...'}", remedy
    )


def as_path(where: str, given: Any) -> Path:
    """Return an argument as a path.

    Raises:
        ConfigError: it cannot be one.
    """
    if not isinstance(given, str | os.PathLike):
        raise wrong(where, "the path of a file or folder", given, "Give a string or a pathlib.Path")
    return Path(given)


def as_paths(where: str, given: Any) -> list[str | Path]:
    """Return one path, or several, as a list.

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(given, str | os.PathLike):
        return [as_path(where, given)] if str(given) != "-" else ["-"]
    if not isinstance(given, Sequence):
        raise wrong(where, "a path, or a list of paths", given, "Give strings or pathlib.Path")
    return [path if path == "-" else as_path(where, path) for path in given]


def require_config(where: str, given: Any) -> None:
    """Refuse what is no `RunConfig` where one is needed.

    Raises:
        ConfigError: it is something else, such as the settings' file or values.
    """
    if not isinstance(given, RunConfig):
        made = f"RunConfig.{'from_dict' if isinstance(given, dict) else 'load'}"
        value = "values" if isinstance(given, dict) else repr(given) if isinstance(given, str) else "'params.yaml'"
        raise wrong(where, "a RunConfig", given, f"Give {made}({value})")


@cache
def taking_config(function: Callable[..., Any], where: str) -> Callable[..., Any]:
    """Return a function whose first argument is a `RunConfig`, which says so where it is given something else."""

    @wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        require_config(where, arguments[0] if arguments else named.get("config"))
        return function(*arguments, **named)

    return checked
