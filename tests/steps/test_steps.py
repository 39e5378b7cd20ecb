"""The steps against everything that has them too: files, docs, dvc.yaml, components, `make clean`, the public names."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from support.models import small_workspace
from support.step_places import problems_of

import ocrmem
from ocrmem.cli.parser import OWN
from ocrmem.config import PathsSection, RunConfig
from ocrmem.steps import COMMANDS, STEPS, TASKS
from ocrmem.steps.__main__ import outputs
from ocrmem.steps.step import load

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", STEPS)
def test_a_step_has_all_of_its_places(name: str) -> None:
    assert problems_of(STEPS[name], STEPS, ROOT) == []


def test_every_file_of_steps_is_one_of_them() -> None:
    files = {path.stem for path in (ROOT / "ocrmem" / "steps").glob("*.py")} - {"__init__", "__main__", "step"}
    assert files == {name.replace("-", "_") for name in STEPS}


def test_every_stage_and_every_component_is_of_a_step() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert list(stages) == [step.name for step in STEPS.values() if step.is_stage]
    components = {path.stem for path in (ROOT / "components").glob("*.py")}
    assert components - {"__init__", "image", "summarise_run"} == {step.component for step in TASKS.values()}


def test_a_step_reads_what_an_earlier_one_writes() -> None:
    written = {"data"}
    for step in STEPS.values():
        assert set(step.reads) <= written, step.name
        written |= set(step.writes)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_docs_name_commands_that_exist(page: Path) -> None:
    named = set(re.findall(r"(?:^    |`)ocrmem ([a-z][a-z-]*)", page.read_text(encoding="utf-8"), re.M))
    assert named - set(COMMANDS) - set(OWN) <= ({"count"} if page.name == "extending.md" else set())


def test_help_is_one_line_in_the_imperative() -> None:
    for step in STEPS.values():
        first = step.help.split()[0].rstrip(",")
        assert step.help[0].islower(), step.name
        assert not step.help.endswith("."), step.name
        assert not first.endswith("s"), f"{step.name}: {first}"


def test_settings_that_a_step_names_exist() -> None:
    values = RunConfig().as_dict()
    for step in STEPS.values():
        for name in {*step.settings, *step.other_settings} - {"*"}:
            section, _, field = name.partition(".")
            assert not field or field in values[section], f"{step.name}: {name}"


def test_every_field_of_paths_is_written_by_a_step() -> None:
    fields = {getattr(PathsSection(), name) for name in PathsSection.model_fields} - {"."}
    assert fields <= set(outputs())


def test_make_clean_removes_what_steps_write_and_nothing_else(tmp_path: Path) -> None:
    # `make test` runs this: a make within a make says which directory it enters, unless it is told not to.
    make = ["make", "--no-print-directory", "-n", "clean", "PYTHON=python"]
    shown = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    command = shown.strip().splitlines()[-1]
    (tmp_path / "ocrmem").symlink_to(ROOT / "ocrmem")
    for name in ("data", "params.yaml", *outputs()):
        (tmp_path / name).mkdir()
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "params.yaml", "ocrmem"}


@pytest.mark.parametrize("name", [name for name, step in COMMANDS.items() if step.function])
def test_a_verb_is_a_function_of_ocrmem(name: str) -> None:
    function = getattr(ocrmem, name.replace("-", "_"))
    assert callable(function)
    assert function is STEPS[name].load()
    assert name.replace("-", "_") in dir(ocrmem)


@functools.cache
def typed_results() -> set[str]:
    """The TypedDicts of ocrmem that end in Result, and those that derive from one."""
    classes = [
        node
        for path in (ROOT / "ocrmem").rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    ]
    typed = {"TypedDict"}
    for _ in range(3):
        typed |= {node.name for node in classes if typed & {ast.unparse(base) for base in node.bases}}
    return {name for name in typed if name.endswith("Result")}


PIPELINE = ("local:run_locally", "compiling:compile_pipelines", "submitting:submit", "compiled:list_pipelines")


@pytest.mark.parametrize(
    "target",
    [step.function for step in COMMANDS.values() if step.function] + [f"ocrmem.workflow.{name}" for name in PIPELINE],
)
def test_a_verb_has_a_typed_result(target: str) -> None:
    annotation = inspect.signature(load(target)).return_annotation
    assert annotation in typed_results(), f"{target} returns {annotation}"


def test_the_example_in_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_workspace(tmp_path, features=False)
    monkeypatch.chdir(tmp_path)
    [example] = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "index.md").read_text("utf-8"), re.M | re.S)
    exec(example, {})
    assert (tmp_path / "checks" / "result.json").is_file()


def test_what_is_no_verb_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'gate'"):
        ocrmem.gate  # noqa: B018
