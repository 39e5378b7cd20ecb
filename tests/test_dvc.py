"""`dvc repro` on a copy of this repository: everything once, then register alone, then only what is stale."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from support.quick import QUICK
from support.ranks import unmeasured

from ocrmem.package import adapter_sha256
from ocrmem.steps import STEPS

ROOT = Path(__file__).resolve().parent.parent
STAGES = [step.name for step in STEPS.values() if step.is_stage]


def run(directory: Path, *command: str) -> str:
    scripts = Path(sys.executable).parent
    environment = unmeasured(os.environ) | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
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
    trained = json.loads((clone / "train.json").read_text(encoding="utf-8"))["stages"]
    assert [(stage["objective"], stage["steps"]) for stage in trained] == [("align", 3), ("answer", 1)]
    left = set(run(clone, "git", "status", "--porcelain").split()) - {"M", "??", "data.dvc", "dvc.lock"}
    assert not left, "outputs must stay out of git"

    assert stages_run(run(clone, "dvc", "repro")) == ["register"]

    change(clone, train=QUICK["train"] | {"learning_rate": 0.002})
    assert stages_run(run(clone, "dvc", "repro")) == ["train", "evaluate", "register"]
    registration = json.loads((clone / "registration.json").read_text(encoding="utf-8"))
    assert int(registration["version"]) == 2

    change(clone, train={"lora": {"rank": 2}})
    assert "smoke:" in run(clone, "dvc", "status"), "it checks LoRA's gradients too"


MAKE = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import yaml
from support.registered import finished_run
recall = yaml.safe_load(Path("made.yaml").read_text())["recall"]
finished_run(Path.cwd(), weights=str(recall).encode(), recall=recall, paths={{"reports": str(Path.cwd())}})
"""


@pytest.fixture
def registering(tmp_path: Path) -> Path:
    """A repository of DVC with the stage `register` and, in place of all before it, one that takes no time."""
    directory = tmp_path / "one"
    directory.mkdir()
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["register"]
    made = {"cmd": "python make.py", "params": [{"made.yaml": ["recall"]}], "deps": ["make.py"]}
    made["outs"] = ["adapter", "evaluation.json", "smoke", "dataset", "train.json"]
    (directory / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": made, "register": stage}}))
    (directory / "make.py").write_text(MAKE.format(tests=str(ROOT / "tests")))
    (directory / "made.yaml").write_text("recall: 0.9\n")
    shutil.copy(ROOT / "params.yaml", directory)
    uri = f"sqlite:///{directory}/registry/mlflow.db"  # an experiment in a directory of its own uses it as well
    change(directory, register={"gate": {"min_recall": 0.5}, "uri": uri}, tracking={"wandb": "disabled"})
    (directory / ".gitignore").write_text("/registry\n/registration.json\n")
    run(directory, "git", "init", "--quiet")
    run(directory, "dvc", "init", "--quiet")
    return directory


def commit(directory: Path) -> None:
    run(directory, "git", "add", ".")
    run(directory, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "state")


def registered(directory: Path) -> tuple[int, str | None]:
    """Version and alias in registration.json, after comparing them with adapter/ and with the registry."""
    said = json.loads((directory / "registration.json").read_text(encoding="utf-8"))
    versions, champion = in_registry(directory)
    assert said["adapter_sha256"] == adapter_sha256(directory / "adapter")
    assert versions[said["version"]] == said["package_sha256"]
    assert (champion == said["version"]) == (said["alias"] == "champion")
    return said["version"], said["alias"]


def in_registry(directory: Path) -> tuple[dict[int, str], int]:
    """The package of each version, and the version that has the alias."""
    with closing(sqlite3.connect(directory / "registry" / "mlflow.db")) as db:
        packages = "SELECT version, value FROM model_version_tags WHERE key = 'ocrmem.package_sha256'"
        ((champion,),) = db.execute("SELECT version FROM registered_model_aliases")
        return dict(db.execute(packages)), champion


@pytest.mark.slow
def test_what_register_says_is_true_after_an_experiment_and_after_a_checkout(registering: Path) -> None:
    assert stages_run(run(registering, "dvc", "repro")) == ["train", "register"]
    assert registered(registering) == (1, "champion")
    commit(registering)

    # An experiment is registered and, although it is better, leaves the alias until it is chosen.
    run(registering, "dvc", "exp", "run", "--temp", "--name", "better", "--set-param", "made.yaml:recall=0.95")
    versions, champion = in_registry(registering)
    assert (len(versions), champion) == (2, 1)
    run(registering, "dvc", "exp", "apply", "better")
    assert json.loads((registering / "registration.json").read_text())["version"] == 1
    assert stages_run(run(registering, "dvc", "repro")) == ["register"]
    assert registered(registering) == (2, "champion")
    commit(registering)

    # An older commit: its version is found again, and the better one keeps the alias.
    run(registering, "git", "checkout", "--quiet", "--force", "HEAD~1")
    run(registering, "dvc", "checkout", "--force")
    assert stages_run(run(registering, "dvc", "repro")) == ["register"]
    assert registered(registering) == (1, None)


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
