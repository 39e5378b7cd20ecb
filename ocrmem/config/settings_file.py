"""Settings as written: a YAML file without surprises, and ``key.path=value`` overrides."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ocrmem.errors import Problem
from ocrmem.secrets import redact

_MAX_BYTES = 1 << 20
_MAX_DIGITS = 40

# ``key.path=value`` texts, whose values are YAML, or key paths with plain values.
Overrides = Sequence[str] | Mapping[str, Any]


@dataclass
class RawSettings:
    """Values with where they come from.

    Attributes:
        values: nested, not yet checked.
        place: the file's name, for problems.
        text: the file as written, comments included.
        overridden: paths that ``--set`` gave.
        problems: what was wrong in reading.
        readable: whether the values are worth checking.
    """

    values: dict[str, Any] = field(default_factory=dict)
    place: str = "configuration"
    text: str = ""
    overridden: set[tuple[str, ...]] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    readable: bool = True

    def report(self, place: str, message: str, remedy: str) -> None:
        self.problems.append(Problem(place, redact(message), remedy))

    def place_of(self, path: Sequence[str]) -> str:
        """Return ``file: a.b``, or ``--set a.b`` when an override gave the value."""
        name = redact(".".join(path))
        given = any(tuple(path[:length]) in self.overridden for length in range(1, len(path) + 1))
        return f"--set {name}" if given else f"{self.place}: {name}"


class _Loader(yaml.SafeLoader):
    """SafeLoader that notes keys given twice (YAML silently keeps the last), and refuses aliases and giant numbers.

    Every fault of a value is a YAMLError with its line, and every key is text.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[tuple[int, str]] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = getattr(key_node, "value", None)
            if isinstance(key, str):
                line = key_node.start_mark.line + 1
                if key in seen:
                    self.duplicates.append((line, f"{key!r} is given again (first in line {seen[key]})"))
                seen.setdefault(key, line)
        return {str(key): value for key, value in super().construct_mapping(node, deep).items()}

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
            # PyYAML's own constructors: !!timestamp of a word, !!bool of a number, the 99th of a month.
            tag = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(None, None, f"no {tag}", node.start_mark) from error

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > _MAX_DIGITS:
            message = f"a number of {len(node.value):,} digits"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
        return super().construct_yaml_int(node)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not used here", mark)
        return super().compose_node(parent, index)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read_settings(path: Path, overrides: Overrides = ()) -> RawSettings:
    """Read a file and apply overrides; what is wrong is in ``problems``, nothing is raised."""
    settings = RawSettings(place=str(path))
    text = _read_text(path, settings)
    if text is not None:
        settings.text = text
        settings.values = _parse(text, settings)
    settings.readable = not settings.problems or bool(settings.values)
    return apply_overrides(settings, overrides)


def apply_overrides(settings: RawSettings, overrides: Overrides) -> RawSettings:
    """Put overrides into settings; what is wrong is in ``problems``."""
    if isinstance(overrides, Mapping):
        for name, value in overrides.items():
            _put(name, os.fspath(value) if isinstance(value, os.PathLike) else value, settings)
        return settings
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        remedy = 'Give a list, as in ["train.max_steps=100"], or a dict, as in {"train.max_steps": 100}'
        settings.report("overrides", f"are {overrides!r}", remedy)
        return settings
    for override in overrides:
        name, equals, text = override.partition("=")
        place = f"--set {redact(name)}"
        try:
            value, duplicates = _load(text)
        except (yaml.YAMLError, RecursionError) as error:
            message = f"has a value that is not YAML ({_reason(error)})"
            settings.report(place, message, "Put quotes around the value")
        else:
            for _, message in duplicates:
                settings.report(place, message, "Keep the one you mean")
            _put(name, value, settings, well_formed=bool(equals))
    return settings


def _read_text(path: Path, settings: RawSettings) -> str | None:
    remedy = "Give the path of a YAML file (--config)"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise OSError(None, "larger than 1 MiB, too large for a settings file")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        settings.report(str(path), "is not there", f"{remedy}, or copy one from the checkout's configs/")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        settings.report(f"{path}:{line}", "is not UTF-8", "Save the file as UTF-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        settings.report(str(path), f"cannot be read ({reason})", remedy)
    return None


def _parse(text: str, settings: RawSettings) -> dict[str, Any]:
    try:
        value, duplicates = _load(text)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        place = f"{settings.place}:{mark.line + 1}" if mark else settings.place
        remedy = "Indent with spaces, and put quotes around values that hold ': ' or '#'"
        settings.report(place, f"is not readable YAML ({_reason(error)})", remedy)
        return {}
    for line, message in duplicates:
        settings.report(f"{settings.place}:{line}", message, "Keep the one you mean")
    if value is not None and not isinstance(value, dict):
        remedy = "Write sections with fields, such as `train:` and below it `  max_steps: 100`"
        settings.report(settings.place, f"holds a {type(value).__name__}, not sections", remedy)
        return {}
    return value or {}


def _load(text: str) -> tuple[Any, list[tuple[int, str]]]:
    """Return the one value of a YAML text, and the lines and messages of keys that are given again.

    Raises:
        YAMLError: the text, or a value in it, is not what the settings' YAML allows.
        RecursionError: it is nested too deeply.
    """
    loader = _Loader(text)
    return loader.get_single_data(), loader.duplicates


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return getattr(error, "problem", None) or getattr(error, "reason", "") or "not YAML"


def _put(name: str, value: Any, settings: RawSettings, *, well_formed: bool = True) -> None:
    path = tuple(part.strip() for part in name.split("."))
    if not well_formed or not all(path):
        settings.report(f"--set {redact(name)}", "is not key.path=value", "Write for example train.max_steps=100")
        return
    level = settings.values
    for part in path[:-1]:
        if not isinstance(level.get(part), dict):
            level[part] = {}
        level = level[part]
    level[path[-1]] = value
    settings.overridden.add(path)
