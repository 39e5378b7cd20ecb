"""What a library function is given in place of what it takes: one error, which says how to write it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache, wraps
from pathlib import Path
from types import UnionType
from typing import Any

from ocrmem.config import RunConfig
from ocrmem.errors import wrong


def require(kind: type | UnionType, given: Any, where: str, takes: str, remedy: str) -> None:
    """Refuse an argument that is not of the kind; see `ocrmem.errors.wrong`.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(given, kind):
        raise wrong(where, takes, given, remedy)


def as_path(where: str, given: Any) -> Path:
    """Return an argument as a path.

    Raises:
        ConfigError: it cannot be one.
    """
    require(str | os.PathLike, given, where, "the path of a file or folder", "Give a string or a pathlib.Path")
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
