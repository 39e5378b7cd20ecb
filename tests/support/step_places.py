"""Every place that a step has in a checkout, and the name of each that is missing or says something else."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ocrmem.steps import Step
from ocrmem.steps.__main__ import gitignore, index_page


def problems_of(step: Step, steps: Mapping[str, Step], root: Path) -> list[str]:
    """Return what is missing for one of ``steps`` in the checkout ``root``, each with the name of the file."""
    return [
        *_in_its_own_file(step, root),
        *_in_what_is_generated(step, steps, root),
        *(_in_dvc(step, steps, root) if step.is_stage else ()),
        *(_as_task(step, root) if step.component else ()),
    ]


def _in_its_own_file(step: Step, root: Path) -> Iterator[str]:
    name = step.name.replace("-", "_")
    if not (root / "ocrmem" / "steps" / f"{name}.py").is_file():
        yield f"ocrmem/steps/{name}.py: is not there"
    if f"    {name},\n" not in (root / "ocrmem" / "steps" / "__init__.py").read_text(encoding="utf-8"):
        yield f"ocrmem/steps/__init__.py: lacks {name}"
    if step.function:
        module, _, function = step.function.partition(":")
        path = root / module.replace(".", "/")
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if not path.is_file() or function not in path.read_text(encoding="utf-8"):
            yield f"{path.relative_to(root)}: has no function {function}"


def _in_what_is_generated(step: Step, steps: Mapping[str, Step], root: Path) -> Iterator[str]:
    if not (root / "docs" / step.page).is_file():
        yield f"docs/{step.page}: is not there"
    index = (root / "docs" / "index.md").read_text(encoding="utf-8")
    if index_page(index, steps) != index:
        yield "docs/index.md: has the table of other steps; run `make reference`"
    ignored = (root / ".gitignore").read_text(encoding="utf-8")
    if gitignore(ignored, steps) != ignored:
        yield ".gitignore: names what other steps write; run `make reference`"


def _in_dvc(step: Step, steps: Mapping[str, Step], root: Path) -> Iterator[str]:
    stage = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"].get(step.name)
    if stage is None:
        yield f"dvc.yaml: has no stage {step.name}"
        return
    if stage["cmd"].split()[:2] != ["ocrmem", step.name]:
        yield f"dvc.yaml: {step.name} runs {stage['cmd']}"
    deps = {_first_part(place) for place in stage.get("deps", [])}
    passed = {name: set(steps[name].writes) for name in step.after}
    for name in set(step.reads) - deps:
        yield f"dvc.yaml: {step.name}.deps lacks {name}"
    for name, written in passed.items():
        if not written & deps:
            yield f"dvc.yaml: {step.name}.deps has nothing of {name}, after which it runs"
    for name in deps.difference(step.reads, *passed.values()):
        yield f"dvc.yaml: {step.name}.deps has {name}, which the step does not read"
    outs = {_first_part(place) for kind in ("outs", "metrics", "plots") for place in stage.get(kind, [])}
    # What is asked again each time is no output: DVC would bring back an old answer.
    for name in outs ^ set(() if stage.get("always_changed") else step.writes):
        yield f"dvc.yaml: {step.name} differs from the step in whether it writes {name}"
    for name in set(stage.get("params", [])) ^ set(step.settings):
        yield f"dvc.yaml: {step.name}.params differs from the step's settings in {name}"


def _as_task(step: Step, root: Path) -> Iterator[str]:
    component = root / "components" / f"{step.component}.py"
    if not component.is_file():
        yield f"components/{step.component}.py: is not there"
    elif f"tasks.{step.name}(" not in component.read_text(encoding="utf-8"):
        yield f"components/{step.component}.py: does not run tasks.{step.name}"
    tasks = ast.parse((root / "ocrmem" / "workflow" / "tasks.py").read_text(encoding="utf-8"))
    if step.name not in {node.name for node in tasks.body if isinstance(node, ast.FunctionDef)}:
        yield f"ocrmem/workflow/tasks.py: has no function {step.name}"
    validate = (root / "components" / "validate_config.py").read_text(encoding="utf-8")
    if step.name != "validate" and f'("{step.name}", str)' not in validate:
        yield f'components/validate_config.py: has no output ("{step.name}", str)'
    compiled = (root / "pipelines" / "adapter_training.yaml").read_text(encoding="utf-8")
    if f"comp-{step.component}:".replace("_", "-") not in compiled:
        yield "pipelines/adapter_training.yaml: lacks its task; run `ocrmem pipeline compile`"


def _first_part(place: str | dict[str, Any]) -> str:
    return (place if isinstance(place, str) else next(iter(place))).partition("/")[0]
