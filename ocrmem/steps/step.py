"""`Step`: all that is known of a verb, in one place, without importing what it does."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocrmem.config import PathsSection, RunConfig

Arguments = argparse.Namespace
EVERYTHING = "*"
# What verbs are for, in the order in which `ocrmem help` shows them.
GROUPS = {
    "memory": "ask from memory",
    "conversations": "bring or make conversations",
    "dataset": "make the dataset",
    "training": "train an adapter",
    "release": "judge and register it",
    "pipelines": "run all of it",
}
# Every task gets these: sizes depend on them. evaluate.max_new_tokens: a rule joins it with the model's sections.
_ALWAYS = ("model", "render", "data", "evaluate.max_new_tokens")


@dataclass(frozen=True, kw_only=True)
class Step:
    """A verb: as a library function, a command, a DVC stage, a task of a pipeline and a page of the docs.

    Places in ``reads``, ``writes`` and ``keeps`` have the names that they have by default: ``data`` is ``data.path``,
    ``wandb`` is ``paths.tracking``, a file lies in ``paths.reports``.

    Attributes:
        name: of the command, the stage and the task.
        help: one line in the imperative.
        group: what it is for, one of `GROUPS`.
        example: a command line that shows it at work; a task that is no command has none.
        function: ``package.module:function``, imported when it is called; empty if there are several, one an action.
        page: of docs/.
        options: adds the command's own arguments.
        passes: options that become keyword arguments of ``function`` as they are.
        call: runs the command if ``function(config, **passes)`` does not; returns what the function returns.
        is_command: False for a task that no command stands for.
        takes_config: whether the command has ``--config`` and ``--set``, and the function a `RunConfig`.
        reads: inputs.
        writes: outputs.
        reads_named, writes_named: the arguments that name other inputs and outputs, as the usage has them.
        keeps: what stays from one run of it to the next without being an output.
        after: steps that must have passed, although nothing of theirs is read.
        settings: by dotted name, those whose change makes the outputs stale; ``*``: all but ``paths``.
        other_settings: those that it reads besides.
        is_stage: whether dvc.yaml has it.
        component: module of components/ with its task; None: it is not a task.
        cached: whether outputs depend on inputs and settings alone, so that a pipeline may use them again.
        network: whether it talks to something that may be away for a moment, so that a pipeline tries it again.
        gpu: whether it computes on GPUs where there are some.
        talks: whether it reads stdin and writes stdout while it runs.
    """

    name: str
    help: str
    group: str
    example: str = ""
    function: str
    page: str
    options: Callable[[argparse.ArgumentParser], None] | None = None
    passes: tuple[str, ...] = ()
    call: Callable[[Step, Arguments], Mapping[str, Any]] | None = None
    is_command: bool = True
    takes_config: bool = True
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    reads_named: tuple[str, ...] = ()
    writes_named: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    other_settings: tuple[str, ...] = ()
    is_stage: bool = False
    component: str | None = None
    cached: bool = False
    network: bool = False
    gpu: bool = False
    talks: bool = False

    def load(self) -> Callable[..., Any]:
        """Import the library function; one that takes a `RunConfig` says so where it is given something else."""
        function = load(self.function)
        if not self.takes_config:
            return function
        return load("ocrmem.arguments:taking_config")(function, f"ocrmem.{self.name.replace('-', '_')}")

    def run(self, arguments: Arguments) -> Mapping[str, Any]:
        """Run what the command line asks for.

        Returns:
            The library function's result; ``summary`` in it is for a person.

        Raises:
            OcrMemError: as the library function.
        """
        if self.call is not None:
            return self.call(self, arguments)
        passed = {name: getattr(arguments, name) for name in self.passes}
        if not self.takes_config:
            return self.load()(**passed)
        return self.call_with(run_config(arguments), **passed)

    def call_with(self, config: RunConfig, **arguments: Any) -> Mapping[str, Any]:
        """Call the library function once its outputs are known to have a place: most are written when the work is done.

        Settings and places come before the import, which may take seconds.

        Raises:
            ConfigError: an output cannot be written.
            OcrMemError: as the library function.
        """
        from ocrmem.places import require_places

        require_places(self._outputs(config.paths))
        return self.load()(config, **arguments)

    def _outputs(self, paths: PathsSection) -> Iterator[Path]:
        """Yield where ``writes`` are in a run."""
        directories = {field.default: name for name, field in type(paths).model_fields.items()}
        for place in self.writes:
            yield Path(getattr(paths, directories[place])) if place in directories else paths.report(place)

    def handed_settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that a task of this step is handed.

        A task gets these and no others, so that a cached one stands when a setting that it does not read changes.

        Args:
            values: those of a run by section, as `RunConfig.as_dict` gives them.
        """
        wanted = (*_ALWAYS, *self.settings, *self.other_settings)
        if EVERYTHING in wanted:
            return {name: section for name, section in values.items() if name != "paths"}
        chosen: dict[str, Any] = {}
        for name in wanted:
            section, _, field = name.partition(".")
            if field:
                chosen.setdefault(section, {})[field] = values[section][field]
            else:
                chosen[section] = dict(values[section])
        return chosen


def load(target: str) -> Callable[..., Any]:
    """Import ``package.module:function``."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def run_config(arguments: Arguments) -> RunConfig:
    """Read the settings that the command line names.

    Raises:
        ConfigError: with every fault.
    """
    from ocrmem.config import RunConfig

    return RunConfig.load(arguments.config, arguments.set)


def run_config_if_named(arguments: Arguments) -> RunConfig | None:
    """Read the settings file that the command line names, if it names one.

    Raises:
        ConfigError: with every fault.
    """
    from ocrmem.config import RunConfig

    return RunConfig.load(arguments.config) if arguments.config else None


def positive(text: str) -> int:
    """Read an option that is a number above 0."""
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value
