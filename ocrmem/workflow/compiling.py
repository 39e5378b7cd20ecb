"""From pipelines/NAME.py to NAME.yaml, byte for byte the same wherever it is done."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ocrmem.errors import ConfigError
from ocrmem.files import write_bytes
from ocrmem.workflow.compile_settings import PipelineSettings, load_settings
from ocrmem.workflow.compiled import find_directory, kfp_missing

PARAMS = "params.yaml"


def compile_pipelines(
    name: str | None, *, settings: Path | None, overrides: Sequence[str], directory: Path, output: Path | None
) -> dict[str, Any]:
    """Compile one pipeline, or all of a folder.

    Args:
        name: None for all.
        settings: a file of compile-time settings.
        overrides: ``name=value``, one setting each.
        directory, output: as for `compile_pipeline`.

    Raises:
        ConfigError: settings that do not hold, an unknown name, or an output for several.
    """
    chosen = load_settings(settings, overrides)
    if output and not name:
        raise ConfigError.of("--output", "is one file, but all pipelines are compiled", "Name the pipeline")
    names = [name] if name else _names(find_directory(directory))
    done = [compile_pipeline(each, chosen, directory, output) for each in names]
    return {"files": [each["file"] for each in done], "summary": [line for each in done for line in each["summary"]]}


def compile_pipeline(name: str, settings: PipelineSettings, directory: Path, output: Path | None) -> dict[str, Any]:
    """Compile one pipeline.

    Args:
        name: of the module in ``directory``.
        settings: compile-time settings.
        directory: the checkout's pipelines/; params.yaml beside it becomes the default of the parameter ``params``.
        output: the file to write; None: NAME.yaml in ``directory``.

    Raises:
        ConfigError: no such pipeline, or kfp is not installed.
    """
    directory = find_directory(directory)
    try:
        from kfp import compiler
    except ImportError:
        raise kfp_missing() from None
    params = directory.parent / PARAMS
    module = _imported(directory, name)
    target = output or directory / f"{name}.yaml"
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kfp, about itself
        written = Path(scratch) / f"{name}.yaml"
        pipeline = module.build(settings, _one_line(params))
        compiler.Compiler().compile(pipeline, str(written))
        write_bytes(target, written.read_bytes())
    return {"pipeline": name, "file": str(target), "summary": [f"{name}: compiled to {target}"]}


def _one_line(params: Path) -> str:
    """Settings as one line of JSON, which is YAML too: kfp writes defaults into a comment of one line."""
    return json.dumps(yaml.safe_load(params.read_text(encoding="utf-8")), ensure_ascii=False)


def _imported(directory: Path, name: str) -> Any:
    if not (directory / f"{name}.py").is_file():
        raise ConfigError.of(
            str(directory / f"{name}.py"), "is not there", "`ocrmem pipeline list` names what there is"
        )
    root = str(directory.resolve().parent)
    sys.path.insert(0, root)
    try:
        return importlib.import_module(f"{directory.resolve().name}.{name}")
    finally:
        sys.path.remove(root)


def _names(directory: Path) -> list[str]:
    """Modules that make a pipeline; the others are what these share."""
    return sorted(path.stem for path in directory.glob("*.py") if "def build(" in path.read_text(encoding="utf-8"))
