"""`ocrmem pipeline run --local`, as a process: both pipelines to their end, each way to fail, and a kill in the middle.

All runs share one folder and its cache, so a task is run again only where its inputs have changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from safetensors.torch import load_file, save_file
from support.quick import QUICK

from ocrmem.cli import main
from ocrmem.evaluation.result import metrics_of
from ocrmem.files import sha256_tree
from ocrmem.package import adapter_sha256
from ocrmem.steps import TASKS
from ocrmem.workflow.records import read_records

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PIPELINES = ROOT / "pipelines"
STEPS = list(TASKS)


# Keys as an environment has them, which no file and no stream may show.
KEYS = {
    "HF_TOKEN": "hf_plantedword" + "0123456789abcdef",
    "AWS_SECRET_ACCESS_KEY": "plantedword/aws",
    "AWS_ENDPOINT_URL": "http://me:plantedword@127.0.0.1:9",
    "MLFLOW_TRACKING_PASSWORD": "plantedword-mlflow",
    "MODEL_REGISTRY_TOKEN": "plantedword-registry",
    "WANDB_API_KEY": "plantedword".ljust(40, "0"),
    "WANDB_BASE_URL": "http://me:plantedword@127.0.0.1:9",
    "KF_PIPELINES_TOKEN": "plantedword-kfp",
}


@dataclass
class Run:
    """A run that has ended."""

    code: int
    out: str
    err: str
    directory: Path

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.directory / "summary.json").read_text(encoding="utf-8"))

    @property
    def statuses(self) -> dict[str, str]:
        return {row["step"]: row["status"] for row in self.summary["steps"]}

    def artifact(self, task: str, name: str) -> Path:
        [found] = self.directory.glob(f"*/{task}/{name}")
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with settings and conversations, as a user has them."""
    directory = tmp_path_factory.mktemp("local")
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name, fields in QUICK.items():
        settings[name] = settings.get(name, {}) | fields
    (directory / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (directory / "data").mkdir()
    for name in ("train", "eval", "counterfactual"):
        lines = (ROOT / "samples" / "conversations" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        (directory / "data" / f"{name}.jsonl").write_text("\n".join(lines[:12]) + "\n", encoding="utf-8")
    return directory


def command(name: str, *more: str) -> list[str]:
    place = ["--local", "--directory", str(PIPELINES), "--cache"]
    return [sys.executable, "-m", "ocrmem", "pipeline", "run", name, *place, *more]


def run(place: Path, name: str, *more: str) -> Run:
    before = _runs(place)
    environment = os.environ | KEYS
    done = subprocess.run(
        command(name, *more), cwd=place, env=environment, capture_output=True, text=True, timeout=1500
    )
    [directory] = _runs(place) - before or {place}
    return Run(done.returncode, done.stdout, done.stderr, directory)


def _runs(place: Path) -> set[Path]:
    return {path for path in (place / "runs").glob("[!.]*") if path.is_dir()}


def problems(err: str) -> list[str]:
    """Return the lines on stderr that are not the progress of the run."""
    return [line for line in err.splitlines() if line and not line.startswith(("run ", "  "))]


@pytest.fixture(scope="module")
def trained(place: Path) -> Run:
    """The training pipeline to its end."""
    done = run(place, "adapter_training")
    assert done.code == 0, done.err + (done.directory / "log.txt").read_text(encoding="utf-8")[-4000:]
    return done


def test_every_task_is_run_and_reported_in_one_line(trained: Run) -> None:
    assert trained.statuses == dict.fromkeys(STEPS, "done") | {"version": "skipped"}
    shown = [line.split()[:2] for line in trained.err.splitlines() if line.startswith("  ")]
    assert shown == [[step, trained.statuses[step]] for step in STEPS]
    assert "Executing task" not in trained.err, "kfp's own lines go to the log"
    log = (trained.directory / "log.txt").read_text(encoding="utf-8")
    assert "Executing task" in log
    assert "version.remote is not configured" in trained.err


def test_a_person_reads_each_text_once_and_the_figures_that_matter(trained: Run) -> None:
    said = {line.split()[0]: " ".join(line.split()[4:]) for line in trained.err.splitlines() if line.startswith("  ")}
    assert said["smoke"].startswith("gradients reach proj and nothing else; loss ")
    assert re.fullmatch(r"loss \d+\.\d{4} -> \d+\.\d{4}, 4 steps in [\d.]+ s", said["train"])
    assert said["evaluate"].startswith("Memory recalls 0 % of held-out facts, another conversation's pages 0 %: ")
    assert said["gate"] == "the gate is met"
    assert said["register"].startswith("Registered models:/")
    first, *figures, last = trained.out.splitlines()
    assert first.startswith("adapter_training: succeeded; 12 tasks, 0 of them cached, ")
    assert {line.split(":")[0].strip() for line in figures} >= {"train.loss.last", "evaluate.memory.recall"}
    assert last.endswith(str(trained.directory))
    lines = [line.strip() for line in (trained.err + trained.out).splitlines()]
    assert len(lines) == len(set(lines))


def test_no_key_of_the_environment_is_in_any_file_or_stream(trained: Run, place: Path) -> None:
    assert "plantedword" not in trained.out + trained.err
    files = [path for path in place.rglob("*") if path.is_file()]
    assert {"log.txt", "provenance.json", "mlflow.db", "evaluation"} <= {path.name for path in files}
    assert not [path for path in files if b"plantedword" in path.read_bytes()]


def test_the_results_are_those_of_the_bare_verbs(
    trained: Run, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place / "data", tmp_path / "data")
    shutil.copy(place / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    for verb in ("validate", "base", "render", "encode", "smoke", "train", "evaluate", "register"):
        assert main([verb, "--quiet"]) == 0, verb
    same = {
        "models": ("build-base", "models", lambda path: sha256_tree(path / "base")),
        "dataset": ("render-dataset", "dataset", sha256_tree),
        "adapter": ("train-adapter", "adapter", adapter_sha256),
        "evaluation.json": ("evaluate-adapter", "evaluation", _metrics),
        "registration.json": ("register-adapter", "package", _package),
    }
    for name, (task, artifact, figure) in same.items():
        assert figure(trained.artifact(task, artifact)) == figure(tmp_path / name), name


def _metrics(path: Path) -> Any:
    evaluation = json.loads(path.read_text(encoding="utf-8"))
    return metrics_of(evaluation), evaluation["adapter_sha256"], evaluation["dataset_manifest_sha256"]


def _package(path: Path) -> str:
    file = path / "provenance.json" if path.is_dir() else path
    return json.loads(file.read_text(encoding="utf-8"))["package_sha256"]


def test_a_task_runs_its_verb_in_its_own_process(trained: Run) -> None:
    """One Python process a task, kfp's executor: a second one for the verb would cost seconds of imports."""
    log = (trained.directory / "log.txt").read_text(encoding="utf-8")
    assert log.count("Got executor_input") == len(STEPS) + 1  # and the summary
    assert log.count("Executing task") == len(STEPS) + 1
    assert "ocrmem" not in {Path(line.split()[0]).name for line in log.splitlines() if line.strip()}


def test_an_unmet_gate_fails_registration_and_leaves_the_alias(place: Path, trained: Run) -> None:
    done = run(place, "adapter_training", "--set", "register.gate.min_recall=1.0")
    assert done.code == 1
    assert done.statuses["gate"] == "done"
    assert done.statuses["register"] == "failed"
    assert {done.statuses[step] for step in ("base", "render", "check", "encode", "smoke")} == {"cached"}
    [line] = problems(done.err)
    assert line.startswith("register.gate.min_recall: memory.recall = ")
    assert "'champion' did not move" in line
    assert done.summary["failed_task"] == "register"
    assert done.summary["metrics"]["gate.passed"] == 0.0
    assert "not met" in done.artifact("check-gate", "report").read_text(encoding="utf-8")


def test_bad_settings_stop_the_run_at_once_with_the_command_lines_own_lines(place: Path) -> None:
    given = ("--set", "train.max_steps=0", "--set", "model.features=both")
    bare = subprocess.run(
        [sys.executable, "-m", "ocrmem", "validate", *given], cwd=place, capture_output=True, text=True, timeout=300
    )
    done = run(place, "adapter_training", *given)
    assert done.code == bare.returncode == 2
    assert problems(done.err) == bare.stderr.splitlines()
    assert "Traceback" not in done.err
    assert done.statuses == dict.fromkeys(STEPS, "not run") | {"validate": "failed"}
    assert "features" in done.artifact("summarise-run", "report").read_text(encoding="utf-8")


def test_a_failed_smoke_test_stops_the_run_before_training(place: Path, trained: Run) -> None:
    """A base model whose blocks write nothing: what memory says reaches no answer, so proj gets no gradient."""
    weights = trained.artifact("build-base", "models") / "base" / "model.safetensors"
    kept = weights.read_bytes()
    tensors = load_file(weights)
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor.zero_()
    try:
        save_file(tensors, weights, metadata={"format": "pt"})
        done = run(place, "adapter_training", "--set", "smoke.samples=3")
    finally:
        weights.write_bytes(kept)
    assert done.code == 1
    assert done.summary["failed_task"] == "smoke"
    assert done.statuses["encode"] == "cached"
    assert done.statuses["train"] == "not run"
    assert any("GF0" in line for line in problems(done.err))
    report = done.directory / "failed" / "smoke" / "smoke" / "report.json"
    assert json.loads(report.read_text(encoding="utf-8"))["ok"] is False
    assert "smoke" in done.artifact("summarise-run", "report").read_text(encoding="utf-8")


def test_a_killed_run_takes_its_task_along_and_is_resumed(place: Path, trained: Run) -> None:
    before = _runs(place)
    more = ("--param", "conversations=8")
    with subprocess.Popen(command("smoke_test", *more), cwd=place, stderr=subprocess.DEVNULL) as process:
        try:
            directory = _wait(lambda: next(iter(_runs(place) - before), None))
            _wait(lambda: _status(directory, "encode") == "running")
            task = read_records(directory)["encode"].pid
            assert task is not None
        finally:
            process.kill()  # the run alone, not the task in its middle
    assert process.returncode == -signal.SIGKILL
    _wait(lambda: not psutil.pid_exists(task))
    [problem] = read_records(directory)["encode"].problems
    assert problem["message"] == "was stopped: the process that ran the pipeline has ended"
    assert not (directory / "summary.json").exists()
    assert not list(directory.glob("*/encode-pages/executor_output.json"))

    [_, again] = problem["remedy"].split("--")
    done = run(place, "smoke_test", *more, f"--{again.split()[0]}", again.split()[1])
    assert done.code == 0, done.err
    done.directory = directory
    assert done.statuses == {
        "validate": "done",
        "base": "cached",
        "render": "cached",
        "encode": "done",
        "smoke": "done",
    }
    shown = [line.split()[:2] for line in done.err.splitlines() if line.startswith("  ")]
    assert shown == [list(one) for one in done.statuses.items()]
    features = [path / "features" for path in directory.glob("*/encode-pages") if (path / "features").is_dir()]
    manifest = json.loads((max(features) / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["shape"][0] == manifest["dataset_pages"] > 0
    report = done.artifact("smoke-test", "report").read_text(encoding="utf-8")
    assert "All checks passed" in report


def _status(directory: Path, step: str) -> str | None:
    record = read_records(directory).get(step)
    return record.status if record else None


def _wait(look: Callable[[], Any], seconds: float = 900) -> Any:
    """Return what ``look`` finds as soon as it finds something; the time only bounds a hang."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.05)
    raise TimeoutError(look)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "smoke_test", "--directory", str(PIPELINES)], "Add --local"),
        (["run", "smoke_test", "--local"], "is not a folder of pipelines"),
        (["run", "nope", "--local", "--directory", str(PIPELINES)], "nope.yaml: is not there"),
        (["run", "smoke_test", "--local", "--directory", str(PIPELINES), "--config", "no.yaml"], "no.yaml: is not"),
        (["submit", "smoke_test", "--directory", str(PIPELINES), "--endpoint", "ftp://x"], "not an http"),
    ],
)
def test_wrong_usage_is_told_in_one_line_with_exit_code_2(
    arguments: Sequence[str],
    message: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    assert main(["pipeline", *arguments]) == 2
    printed = capsys.readouterr().err.splitlines()
    # Where the command itself was written wrongly, its usage stands in front.
    line = printed[-1]
    assert printed[0].startswith("usage: ") or printed == [line]
    assert message in line
