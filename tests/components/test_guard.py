"""The shape of components and pipelines: what a component's module imports, and that every component is thin."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

from ocrmem.config import PLACEHOLDER_IMAGE
from ocrmem.steps import STEPS, TASKS

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path for path in (ROOT / "components").glob("*.py") if path.stem not in {"__init__", "image"})


@pytest.fixture(autouse=True)
def checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def component(path: Path) -> object:
    return getattr(importlib.import_module(f"components.{path.stem}"), path.stem)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_component_needs_only_kfp_to_be_imported(path: Path) -> None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module)):
                modules = [module]
            case _:
                continue
        for module in modules:
            allowed = module.split(".")[0] in {*sys.stdlib_module_names, "kfp"} or module == "components.image"
            assert allowed, f"{path.name} imports {module} at its top; import it in the body"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_component_is_thin_and_installs_nothing(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    [function] = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert function.name == path.stem
    docstring, ours, call = function.body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(ours, ast.ImportFrom)
    assert ours.module == "ocrmem.workflow"
    assert isinstance(call, ast.Expr | ast.Return)
    container = component(path).component_spec.implementation.container
    assert container.image == PLACEHOLDER_IMAGE
    assert "pip install" not in " ".join(container.command)


def test_every_component_is_of_a_step_and_calls_the_task_of_its_name() -> None:
    assert {path.stem for path in MODULES} - {"summarise_run"} == {step.component for step in STEPS.values()} - {None}
    for step in TASKS.values():
        path = ROOT / "components" / f"{step.component}.py"
        assert f"tasks.{step.name}(" in path.read_text(encoding="utf-8"), (
            f"{path.name} does not run the task {step.name}"
        )
