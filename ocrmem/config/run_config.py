"""RunConfig: the settings of a run, read from a file or a dict and checked, with every fault listed at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ocrmem.config.field_faults import check_fields
from ocrmem.config.rules import RULES
from ocrmem.config.schema import FieldPath, RunSettings
from ocrmem.config.settings_file import Overrides, RawSettings, read_settings
from ocrmem.errors import ConfigError, Problem, wrong
from ocrmem.secrets import REMEDY, find_in_text, find_in_values, redact


class RunConfig(RunSettings):
    """Every setting of a run; `load` and `from_dict` check fields and rules, a call checks the fields alone.

    Args:
        given: nothing; a file or values are for `load` and `from_dict`.
        sections: values of a section, or the section itself, by its name; what is left out has its default.

    Raises:
        ConfigError: with one problem for every fault.
    """

    def __init__(self, *given: Any, **sections: Any) -> None:
        if given:
            made = "RunConfig.from_dict(values)" if isinstance(given[0], dict) else "RunConfig.load(path)"
            raise wrong("RunConfig", 'sections by name, as in train={"max_steps": 100}', given[0], f"Write {made}")
        try:
            super().__init__(**sections)
        except ValidationError:
            raise ConfigError(check_fields(RunSettings, RawSettings(values=sections, place="RunConfig"))[1]) from None

    @classmethod
    def load(cls, path: Path | str = "params.yaml", overrides: Overrides = ()) -> RunConfig:
        """Read a settings file and apply overrides.

        Args:
            path: a YAML file with sections.
            overrides: ``key.path=value`` texts, whose values are YAML, or a mapping of key paths to plain values.

        Raises:
            ConfigError: with one problem for every fault of the file, the overrides and the rules together.
        """
        if not isinstance(path, str | os.PathLike):
            remedy = "Give the path of a YAML file, or values to RunConfig.from_dict"
            raise wrong("RunConfig.load", "a path", path, remedy)
        return _config_or_error(check_file(Path(path), overrides))

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, place: str = "configuration") -> RunConfig:
        """Check a dict as `load` checks a file.

        Args:
            values: sections as in params.yaml; what is left out has its default.
            place: what problems call it.
        """
        if not isinstance(values, dict):
            remedy = 'Give values by section, as in {"train": {"max_steps": 100}}, or a file to RunConfig.load'
            raise wrong("RunConfig.from_dict", "a dict", values, remedy)
        return _config_or_error(_check(RawSettings(values=values, place=place)))


@dataclass(frozen=True)
class Checked:
    """A configuration and its faults.

    Attributes:
        config: with the defaults in place of faulty fields; use it only while ``problems`` is empty, or for
            a field that is `sound`.
        problems: all of them.
        faulty: paths of fields that could not be read.
    """

    config: RunConfig
    problems: list[Problem]
    faulty: set[FieldPath]

    def sound(self, name: str) -> bool:
        """Return whether the field ``section.field``, its section and what lies in it could be read."""
        path = tuple(name.split("."))
        return not any(path[: len(bad)] == bad or bad[: len(path)] == path for bad in self.faulty)


def check_file(path: Path, overrides: Overrides = ()) -> Checked:
    """Check a file like `RunConfig.load`, but return the faults, so that others can be listed with them."""
    return _check(read_settings(path, overrides))


def check_secrets(path: Path, overrides: Overrides = ()) -> None:
    """Refuse settings with a key in them before they leave this machine, whatever else may be wrong with them.

    Raises:
        ConfigError: with every key's place.
    """
    if problems := _secret_problems(read_settings(path, overrides)):
        raise ConfigError(problems)


def _check(settings: RawSettings) -> Checked:
    if not settings.readable:
        every: set[FieldPath] = {(section,) for section in RunConfig().as_dict()}
        return Checked(RunConfig(), settings.problems, every)
    config, faults, faulty = check_fields(RunConfig, settings)
    checked = Checked(config, [*settings.problems, *_secret_problems(settings), *faults], faulty)
    for fields, check in RULES:
        if all(map(checked.sound, fields)):
            for name, message, remedy in check(config):
                checked.problems.append(Problem(settings.place_of(name.split(".")), redact(message), redact(remedy)))
    return checked


def _secret_problems(settings: RawSettings) -> list[Problem]:
    problems = [
        Problem(settings.place_of(path), f"looks like {kind}", REMEDY) for path, kind in find_in_values(settings.values)
    ]
    # Keys in comments, or under a name that is given twice, are in no value.
    values, text = "\n".join(_texts(settings.values)), settings.text
    for start, end, kind in find_in_text(text):
        if text[start:end] not in values:
            place = f"{settings.place}:{text.count(chr(10), 0, start) + 1}"
            problems.append(Problem(place, f"holds what looks like {kind}", REMEDY))
    return problems


def _texts(value: Any) -> Iterator[str]:
    """Yield the keys and texts in nested values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, held in value.items():
            yield str(key)
            yield from _texts(held)
    elif isinstance(value, list):
        for held in value:
            yield from _texts(held)


def _config_or_error(checked: Checked) -> RunConfig:
    if checked.problems:
        raise ConfigError(checked.problems)
    return checked.config
