"""docs/extending.md adds a verb: its eight places, taken from the page itself, in a copy of the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.models import small_workspace
from support.step_places import problems_of

from ocrmem.steps import STEPS, Step

ROOT = Path(__file__).resolve().parents[2]
PLACE = re.compile(r"^### \d\. `(?P<file>[^`]+)`$(?P<text>.*?)(?=^##)", re.M | re.S)
BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Place:
    """A file that the page says to write or to change."""

    file: str
    blocks: tuple[tuple[str, str], ...]

    def enter(self, root: Path) -> None:
        path = root / self.file
        for kind, body in self.blocks:
            if kind != "diff":
                path.write_text(body, encoding="utf-8")
                continue
            lines = body.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if not line.startswith("+"))
            text = path.read_text(encoding="utf-8")
            assert text.count(before) == 1, f"{self.file}: {before!r} is there {text.count(before)} times"
            path.write_text(text.replace(before, "".join(line[1:] for line in lines)), encoding="utf-8")

    def take_out(self, root: Path) -> None:
        if self.blocks[0][0] == "diff":
            shutil.copy(ROOT / self.file, root / self.file)
        else:
            (root / self.file).unlink()


def places() -> list[Place]:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    return [Place(found["file"], tuple((b["kind"], b["body"]) for b in BLOCK.finditer(found["text"])))
            for found in PLACE.finditer(page)]  # fmt: skip


PLACES = places()


def run(root: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with the verb, and what `make reference` and `make manifests` write."""
    root = tmp_path_factory.mktemp("extended")
    for name in ("ocrmem", "components", "pipelines", "docs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    for place in PLACES:
        place.enter(root)
    run(root, "-m", "ocrmem.steps", "reference")
    run(root, "-m", "ocrmem", "pipeline", "compile", "adapter_training")
    return root


@pytest.fixture(scope="module")
def steps() -> dict[str, Step]:
    """The steps as they are in the copy."""
    found: dict[str, Any] = {}
    exec(next(body for place in PLACES for _, body in place.blocks if place.file == "ocrmem/steps/count.py"), found)
    steps = {}
    for name, step in STEPS.items():
        steps[name] = step
        if name == "check":
            steps["count"] = found["STEP"]
    return steps


@pytest.fixture
def without(request: pytest.FixtureRequest, extended: Path) -> Iterator[Place]:
    """The copy with one place taken out again."""
    request.param.take_out(extended)
    yield request.param
    request.param.enter(extended)


def test_a_verb_has_at_most_eight_places() -> None:
    assert 4 < len(PLACES) <= 8


def test_the_page_leaves_nothing_out(extended: Path, steps: dict[str, Step]) -> None:
    assert [problem for step in steps.values() for problem in problems_of(step, steps, extended)] == []


@pytest.mark.parametrize("without", PLACES, indirect=True, ids=lambda place: place.file)
def test_a_missing_place_is_named(without: Place, extended: Path, steps: dict[str, Step]) -> None:
    assert any(problem.startswith(f"{without.file}: ") for problem in problems_of(steps["count"], steps, extended))


def test_the_verb_is_a_command_and_a_function(extended: Path, tmp_path: Path) -> None:
    assert "count the tokens that memory replaces" in run(extended, "-m", "ocrmem", "--help")
    small_workspace(tmp_path, features=False)
    result = json.loads(run(extended, "-m", "ocrmem", "count", "--config", str(tmp_path / "params.yaml"), "--json"))
    assert result["history_tokens"] > result["memory_tokens"] > 0
    code = f"import ocrmem; print(ocrmem.count(ocrmem.RunConfig.load({str(tmp_path / 'params.yaml')!r}))['summary'][0])"
    assert "tokens of text in" in run(extended, "-c", code)


def test_the_verb_is_a_task_with_its_own_settings(extended: Path) -> None:
    text = (extended / "pipelines" / "adapter_training.yaml").read_text(encoding="utf-8")
    compiled = next(yaml.load_all(text, yaml.CSafeLoader))
    task = compiled["components"]["comp-exit-handler-1"]["dag"]["tasks"]["count-tokens"]
    assert task["cachingOptions"] == {"enableCache": True}
    assert "validate-dataset" in task["dependentTasks"]
    given = task["inputs"]["parameters"]["settings"]["taskOutputParameter"]
    assert given == {"outputParameterKey": "count", "producerTask": "validate-config"}


def test_make_clean_and_git_know_its_output(extended: Path) -> None:
    assert "count.json" in run(extended, "-m", "ocrmem.steps", "outputs").split()
    assert "/count.json" in (extended / ".gitignore").read_text(encoding="utf-8").split()
