"""Compile pipelines/NAME.py to NAME.yaml, byte for byte the same wherever it is done."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, TypedDict

import yaml

from ocrmem.config.settings_file import Overrides
from ocrmem.errors import ConfigError
from ocrmem.files import write_bytes
from ocrmem.workflow.compile_settings import PipelineSettings, load_settings
from ocrmem.workflow.compiled import find_directory

PARAMS = "params.yaml"


class CompileResult(TypedDict):
    """The files that were written."""

    files: list[str]
    summary: list[str]


def compile_pipelines(
    name: str | None, *, settings: Path | None, overrides: Overrides, directory: Path, output: Path | None
) -> CompileResult:
    """Compile one pipeline, or all of a folder.

    Args:
        name: None for all.
        settings: a file of compile-time settings.
        overrides: ``name=value``, one setting each.
        directory, output: as for `compile_pipeline`.

    Raises:
        ConfigError: invalid settings, an unknown name, or an output for several.
    """
    chosen = load_settings(settings, overrides)
    if output and not name:
        raise ConfigError.of("--output", "is one file, but all pipelines are compiled", "Name the pipeline")
    names = [name] if name else _names(find_directory(directory))
    files = {each: compile_pipeline(each, chosen, directory, output) for each in names}
    return {
        "files": [str(file) for file in files.values()],
        "summary": [f"{each}: compiled to {file}" for each, file in files.items()],
    }


def compile_pipeline(name: str, settings: PipelineSettings, directory: Path, output: Path | None) -> Path:
    """Compile one pipeline and return the file that was written.

    Args:
        name: of the module in ``directory``.
        settings: compile-time settings.
        directory: the checkout's pipelines/; params.yaml beside it becomes the default of the parameter ``params``.
        output: the file to write; None: NAME.yaml in ``directory``.

    Raises:
        ConfigError: the module does not exist, or makes no pipeline.
    """
    from kfp import compiler

    module = _imported(find_directory(directory), name)
    target = output or directory / f"{name}.yaml"
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kfp, about itself
        written = Path(scratch) / f"{name}.yaml"
        compiler.Compiler().compile(module.build(settings, _one_line(directory.parent / PARAMS)), str(written))
        write_bytes(target, written.read_bytes())
    return target


def _one_line(params: Path) -> str:
    """Return settings as one line of JSON, which is YAML too: kfp writes defaults into a comment of one line."""
    return json.dumps(yaml.safe_load(params.read_text(encoding="utf-8")), ensure_ascii=False)


def _imported(directory: Path, name: str) -> Any:
    if not (directory / f"{name}.py").is_file():
        raise ConfigError.of(str(directory / f"{name}.py"), "is not there", "List them with `ocrmem pipeline list`")
    root = str(directory.resolve().parent)
    sys.path.insert(0, root)
    try:
        module = importlib.import_module(f"{directory.resolve().name}.{name}")
    finally:
        sys.path.remove(root)
    if not hasattr(module, "build"):
        raise ConfigError.of(f"{directory / name}.py", "makes no pipeline", "List them with `ocrmem pipeline list`")
    return module


def _names(directory: Path) -> list[str]:
    """Return the modules that make a pipeline; the others are what these share."""
    return sorted(path.stem for path in directory.glob("*.py") if "def build(" in path.read_text(encoding="utf-8"))
