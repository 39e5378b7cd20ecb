"""`dvc repro` on a copy of this repository: everything once, then nothing, then only what a change makes stale."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.quick import QUICK

from ocrmem.steps import STEPS

ROOT = Path(__file__).resolve().parent.parent
STAGES = [step.name for step in STEPS.values() if step.is_stage]


def run(directory: Path, *command: str) -> str:
    scripts = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def change(directory: Path, **sections: dict[str, object]) -> None:
    path = directory / "params.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, fields in sections.items():
        values[name] = values.get(name, {}) | fields
    path.write_text(yaml.safe_dump(values), encoding="utf-8")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a fresh clone holds, with fewer conversations."""
    directory = tmp_path_factory.mktemp("clone")
    names = [".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "data.dvc", "dvc.yaml", "params.yaml"]
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, directory / name)
    (directory / "samples" / "conversations").mkdir(parents=True)
    for name in ("train", "eval", "counterfactual"):
        lines = (ROOT / "samples" / "conversations" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        (directory / "samples" / "conversations" / f"{name}.jsonl").write_text("\n".join(lines[:40]) + "\n")
    change(directory, **QUICK)
    run(directory, "git", "init", "--quiet")
    run(directory, "git", "add", ".")
    run(directory, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "start")
    return directory


@pytest.mark.slow
def test_dvc_repro_runs_what_is_stale_and_nothing_else(clone: Path) -> None:
    assert stages_run(run(clone, "dvc", "repro")) == STAGES
    registration = json.loads((clone / "registration.json").read_text(encoding="utf-8"))
    assert int(registration["version"]) == 1
    left = set(run(clone, "git", "status", "--porcelain").split()) - {"M", "??", "data.dvc", "dvc.lock"}
    assert not left, "outputs must stay out of git"

    assert stages_run(run(clone, "dvc", "repro")) == []

    change(clone, train=QUICK["train"] | {"learning_rate": 0.002})
    assert stages_run(run(clone, "dvc", "repro")) == ["train", "evaluate", "register"]
    registration = json.loads((clone / "registration.json").read_text(encoding="utf-8"))
    assert int(registration["version"]) == 2


def test_every_stage_calls_the_verb_of_its_name_and_every_params_field_exists() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert list(stages) == STAGES
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name, stage in stages.items():
        assert stage["cmd"].split()[:2] == ["ocrmem", name]
        for field in stage["params"]:
            value = params
            for part in field.split("."):
                assert part in value, f"{name}: {field} is not in params.yaml"
                value = value[part]
