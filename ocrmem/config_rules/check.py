"""A configuration from a file or a dict, or all of its faults."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocrmem.config import RunConfig
from ocrmem.config_rules import cluster_rules, deepspeed_rules, model_rules, run_rules, store_rules
from ocrmem.config_rules.fields import field_problems
from ocrmem.config_rules.settings_file import Settings, read_settings
from ocrmem.errors import ConfigError, Problem
from ocrmem.secrets import REMEDY, find_in_text, find_in_values, redact

_RULES = (model_rules, run_rules, deepspeed_rules, cluster_rules, store_rules)


@dataclass(frozen=True)
class Checked:
    """A configuration and its faults.

    Attributes:
        config: with the defaults in place of faulty fields; use it only while ``problems`` is empty, or for
            a field that is not in ``faulty``.
        problems: all of them.
        faulty: paths of fields that could not be read.
    """

    config: RunConfig
    problems: tuple[Problem, ...]
    faulty: frozenset[tuple[str, ...]]

    def sound(self, name: str) -> bool:
        """Whether the field ``section.field``, and its section, could be read."""
        path = tuple(name.split("."))
        return not any(path[: len(bad)] == bad for bad in self.faulty)


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a file, apply overrides and check all of it.

    Raises:
        ConfigError: with every fault.
    """
    return _config_or_error(check_file(path, overrides))


def check_values(values: dict[str, Any], place: str = "configuration") -> RunConfig:
    """The same checks on a dict.

    Args:
        values: sections as in params.yaml; what is left out has its default.
        place: what problems call it.

    Raises:
        ConfigError: with every fault.
    """
    return _config_or_error(_check(Settings(values=values, place=place)))


def check_file(path: Path, overrides: Sequence[str] = ()) -> Checked:
    """Like `load_config`, but the faults are returned, so that other faults can be listed with them."""
    return _check(read_settings(path, overrides))


def check_secrets(path: Path, overrides: Sequence[str] = ()) -> None:
    """Refuse settings with a key in them before they leave this machine, whatever else may be wrong with them.

    Raises:
        ConfigError: with every key's place.
    """
    if problems := _secret_problems(read_settings(path, overrides)):
        raise ConfigError(problems)


def _check(settings: Settings) -> Checked:
    problems = list(settings.problems)
    if not settings.readable:
        every = frozenset((section,) for section in RunConfig().as_dict())
        return Checked(RunConfig(), tuple(problems), every)
    config, faults, faulty = field_problems(settings)
    checked = Checked(config, (), frozenset(faulty))
    problems += _secret_problems(settings)
    problems += faults
    for rule in (rule for module in _RULES for rule in module.rule.all):
        if all(checked.sound(name.replace("register_.", "register.")) for name in rule.fields):
            for name, message, remedy in rule.check(config):
                path = name.replace("register_.", "register.").split(".")
                problems.append(Problem(settings.place_of(path), redact(message), redact(remedy)))
    return Checked(config, tuple(problems), checked.faulty)


def _secret_problems(settings: Settings) -> list[Problem]:
    problems = [
        Problem(settings.place_of(path), f"looks like {kind}", REMEDY) for path, kind in find_in_values(settings.values)
    ]
    # Keys in comments, or under a name that is given twice, are in no value.
    values = json.dumps(settings.values, ensure_ascii=False, default=str)
    text = settings.text
    for start, end, kind in find_in_text(text):
        if text[start:end] not in values:
            place = f"{settings.place}:{text.count(chr(10), 0, start) + 1}"
            problems.append(Problem(place, f"holds what looks like {kind}", REMEDY))
    return problems


def _config_or_error(checked: Checked) -> RunConfig:
    if checked.problems:
        raise ConfigError(checked.problems)
    return checked.config
