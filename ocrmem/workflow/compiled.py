"""Compiled pipelines: find them, list their parameters, read values for these."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import yaml

from ocrmem.config import check_secrets
from ocrmem.errors import ConfigError, Problem

DIRECTORY = Path("pipelines")
_TYPES = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": float, "BOOLEAN": bool, "LIST": list, "STRUCT": dict}


@dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Attributes:
        name: of the file.
        path: the file.
        documents: the pipeline's specification, and the platform's where there is one.
    """

    name: str
    path: Path
    documents: list[dict[str, Any]]

    @property
    def description(self) -> str:
        return self.documents[0]["pipelineInfo"].get("description", "")

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Type and default of every parameter, in the form of the specification."""
        return self.documents[0]["root"].get("inputDefinitions", {}).get("parameters", {})

    @property
    def steps(self) -> list[str]:
        """The verbs in their order, as the exit handler is told."""
        tasks = self.documents[0]["root"].get("dag", {}).get("tasks", {}).values()
        given = [task.get("inputs", {}).get("parameters", {}).get("steps") for task in tasks]
        return next((steps["runtimeValue"]["constant"] for steps in given if steps), [])

    def without(self, *settings: str) -> Package:
        """Return the pipeline without these settings of its tasks: ``retryPolicy``, ``cachingOptions``."""
        documents = copy.deepcopy(self.documents)
        for group in (documents[0]["root"], *documents[0]["components"].values()):
            for task in group.get("dag", {}).get("tasks", {}).values():
                for setting in settings:
                    task.pop(setting, None)
        return Package(self.name, self.path, documents)

    def text(self) -> str:
        """Return the documents as YAML."""
        return yaml.dump_all(self.documents, Dumper=yaml.CSafeDumper)

    def run_values(self, config: Path, overrides: Sequence[str], given: Sequence[str]) -> dict[str, Any]:
        """Return the parameters of a run: the text of a settings file, ``--set``, and what ``--param`` names.

        Raises:
            ConfigError: the settings file cannot be read or holds a key, or a parameter is wrong.
        """
        try:
            text = config.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            remedy = "Give the path of a YAML file with --config"
            raise ConfigError.of(str(config), "is not there, or is not text", remedy) from None
        check_secrets(config, overrides)  # parameters are stored and logged wherever a pipeline runs
        return {"params": text, "overrides": list(overrides), **self.values(given)}

    def values(self, given: Iterable[str]) -> dict[str, Any]:
        """Read values for parameters from ``name=value`` texts, by the type of the parameter.

        Raises:
            ConfigError: an unknown name, or a value of another type; all of them.
        """
        values: dict[str, Any] = {}
        problems = []
        for text in given:
            name, equals, value = text.partition("=")
            declared = self.parameters.get(name)
            place = f"--param {name}"
            if not equals or declared is None:
                known = ", ".join(self.parameters)
                problems.append(
                    Problem(place, f"is not a parameter of {self.name}", f"Write name=value with one of {known}")
                )
                continue
            kind = declared["parameterType"]
            found = _read(value, kind)
            if found is None:
                remedy = 'Write it as JSON, for example ["train.max_steps=100"]'
                problems.append(Problem(place, f"takes a value of type {kind}", remedy))
            values[name] = found
        if problems:
            raise ConfigError(problems)
        return values


def find_directory(directory: Path) -> Path:
    """Return the folder if pipelines are in it.

    Raises:
        ConfigError: there are none.
    """
    if not (directory / "__init__.py").is_file():
        raise ConfigError.of(
            str(directory),
            "is not a folder of pipelines",
            "Run this in a checkout of ocrmem, or name its pipelines/ with --directory",
        )
    return directory


def pipeline_names(directory: Path) -> list[str]:
    """Return the names of a folder's pipelines: modules that have been compiled."""
    return sorted(path.stem for path in find_directory(directory).glob("*.yaml") if path.with_suffix(".py").is_file())


def open_package(name: str, directory: Path) -> Package:
    """Read a compiled pipeline by name, or by the path of its file.

    Raises:
        ConfigError: there is none, or the file is not one.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else find_directory(directory) / f"{name}.yaml"
    remedy = "List them with `ocrmem pipeline list`, or write the files with `ocrmem pipeline compile`"
    if not path.is_file():
        raise ConfigError.of(str(path), "is not there", remedy)
    try:
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), yaml.CSafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError.of(str(path), f"is not valid YAML ({type(error).__name__})", remedy) from None
    if not documents or not isinstance(documents[0], dict) or "pipelineInfo" not in documents[0]:
        raise ConfigError.of(str(path), "is not a compiled pipeline", remedy)
    return Package(path.stem, path, documents)


class ListResult(TypedDict):
    """The compiled pipelines: name, file, description and the defaults of the parameters."""

    pipelines: list[dict[str, Any]]
    summary: list[str]


def list_pipelines(directory: Path) -> ListResult:
    """List the compiled pipelines of a folder with their parameters."""
    packages = [open_package(name, directory) for name in pipeline_names(directory)]
    lines = []
    for package in packages:
        lines.append(f"{package.name}: {package.description}")
        for name, declared in package.parameters.items():
            default = _default(declared)
            shown = "params.yaml as compiled" if name == "params" else json.dumps(default, ensure_ascii=False)
            lines.append(f"    {name:<14} {declared['parameterType'].lower():<14} {shown}")
    found = [{"name": p.name, "file": str(p.path), "description": p.description,
              "parameters": {name: _default(declared) for name, declared in p.parameters.items()}}
             for p in packages]  # fmt: skip
    return {"pipelines": found, "summary": lines or ["no compiled pipeline; run `ocrmem pipeline compile`"]}


def _default(declared: dict[str, Any]) -> Any:
    """Return a parameter's default; the specification writes whole numbers as 16.0."""
    value = declared.get("defaultValue")
    return int(value) if declared["parameterType"] == "NUMBER_INTEGER" and value is not None else value


def _read(text: str, kind: str) -> Any:
    """Return the value, or None where the text is of another type."""
    if kind == "STRING":
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return None
    wanted = _TYPES[kind]
    if wanted is float and type(value) is int:
        return float(value)
    return value if type(value) is wanted else None
