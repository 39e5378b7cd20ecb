"""`ocrmem train --launcher kubernetes` as a person or a pipeline meets it: real processes, exit codes, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.kubernetes_api import TOKEN, FakeCluster, Fault
from support.scenarios import fail, start, success

from ocrmem.cli import main
from ocrmem.cluster.manifest import settings_of

Launch = Callable[..., dict[str, Any]]
PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
BASE = [
    "train",
    "--config",
    str(PARAMS),
    "--launcher",
    "kubernetes",
    "--set",
    "kubernetes.image=registry.test/ocrmem:1",
]


def start_command(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ocrmem", *BASE, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def without_the_sdk(*arguments: str) -> subprocess.CompletedProcess[str]:
    absent = "import sys; sys.modules.update(dict.fromkeys(['kubeflow', 'kubeflow_trainer_api', 'kubernetes']))"
    code = f"{absent}; from ocrmem.cli import main; sys.exit(main({[*BASE, *arguments]!r}))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=6000)


def test_without_the_sdk_it_is_said_what_to_install() -> None:
    done = without_the_sdk()
    assert done.returncode == 2
    assert done.stderr.strip().endswith("Run: pip install 'ocrmem[kubernetes]'.")


def test_a_dry_run_needs_no_sdk(capsys: pytest.CaptureFixture[str]) -> None:
    done = without_the_sdk("--dry-run", "--run-name", "first")
    assert done.returncode == 0, done.stderr
    assert "not compared with Kubeflow Trainer's API" in done.stderr
    assert main([*BASE, "--dry-run", "--run-name", "first"]) == 0
    with_the_sdk = capsys.readouterr()
    assert done.stdout == with_the_sdk.out
    assert with_the_sdk.err == ""


def leaves_with(code: int) -> Callable[[FakeCluster, str], None]:
    def failing(cluster: FakeCluster, job: str) -> None:
        (pod,) = start(cluster, job)
        cluster.log(pod, "step 7: the loss is nan")
        cluster.end_pod(pod, code)
        fail(cluster, job)

    return failing


def test_success_has_logs_on_stderr_and_one_object_on_stdout(cluster: FakeCluster) -> None:
    cluster.scenario = success
    command = start_command("--run-name", "cli", "--json")
    out, err = command.communicate(timeout=6000)
    assert command.returncode == 0, err
    result = json.loads(out)
    assert result["ok"]
    assert result["adapter"]["in_pods"] == "/workspace/output/cli/adapter"
    assert err.index("step 1 loss 2.5") < err.index("step 3 loss 0.5")
    assert TOKEN not in out + err


def test_a_failed_run_leaves_with_1_and_no_traceback(cluster: FakeCluster) -> None:
    cluster.scenario = leaves_with(1)
    command = start_command("--run-name", "cli")
    out, err = command.communicate(timeout=6000)
    assert command.returncode == 1
    assert out == ""
    assert "pod cli-node-0-0-aaaaa: Error: exit code 1 (last log lines:\n    step 7: the loss is nan\n)" in err
    assert "--resume" in err
    assert "Traceback" not in err


def test_a_preempted_run_leaves_with_75_and_json_says_why(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.scenario = leaves_with(75)
    assert main([*BASE, "--run-name", "cli", "--json", "--set", "kubernetes.backoff_limit=0"]) == 75
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["place"] == "pod cli-node-0-0-aaaaa"
    assert problem["message"].startswith("Preempted: training saved a checkpoint")
    assert "--resume" in problem["remedy"]


@pytest.mark.parametrize(
    ("number", "on_interrupt", "kept"),
    [(signal.SIGINT, "keep", ["cli"]), (signal.SIGTERM, "delete", [])],
    ids=["Ctrl-C keeps", "SIGTERM deletes"],
)
def test_an_interrupted_launcher_keeps_or_deletes_the_job_as_told(
    cluster: FakeCluster, number: signal.Signals, on_interrupt: str, kept: list[str]
) -> None:
    cluster.scenario = lambda cluster, job: cluster.log(start(cluster, job)[0], "step 1")
    command = start_command("--run-name", "cli", "--set", f"kubernetes.on_interrupt={on_interrupt}")
    cluster.wait_for_call("get", "pods/log")
    command.send_signal(number)
    _, err = command.communicate(timeout=600)
    assert command.returncode == 130
    assert cluster.names("trainjobs") == kept
    assert ("continues" if kept else "is deleted; its checkpoints stay") in err
    assert "Traceback" not in err


def test_a_job_of_other_settings_is_not_deleted_by_an_interrupt(cluster: FakeCluster, launch: Launch) -> None:
    """It is another run's: this one has only looked at it."""
    cluster.scenario = success
    launch()
    cluster.faults = [Fault("get", "trainjobs", 503, -1)]

    def interrupt() -> None:
        cluster.wait(lambda: cluster.faults[0].times < -2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        launch("train.seed=1", on_interrupt="delete")
    assert cluster.names("trainjobs") == ["one"]


def test_a_dry_run_prints_the_manifest_without_a_call(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, "--dry-run", "--run-name", "first", "--deepspeed", "zero2"]) == 0
    job = yaml.safe_load(capsys.readouterr().out)
    assert job["metadata"]["name"] == "first"
    assert (settings_of(job) or {})["train"]["deepspeed"] == "zero2"
    assert cluster.calls == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--run-name", "One_Two"], "--run-name"),
        (["--output", "here"], "--output"),
        (["--nproc", "2"], "--nproc"),
        (["--launcher", "local", "--dry-run"], "--dry-run"),
        (["--launcher", "local", "--run-name", "x"], "--run-name"),
        (["--set", "train.processes=3"], "train.processes"),
        (["--set", "kubernetes.image=registry.example.org/ocrmem:0.1.0"], "kubernetes.image"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_means_nothing_is_refused_before_anything_is_asked(
    arguments: list[str], named: str, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BASE, *arguments]) == 2
    assert named in capsys.readouterr().err
    assert cluster.calls == []
