"""A local run and the process of its task end together, whichever of them is signalled, and the run can be resumed.

The pipeline is a small one of its own, whose second task waits until it is stopped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from kfp import compiler
from support.waiting_pipeline import waiting

from ocrmem.workflow.records import Record, read_records

pytestmark = pytest.mark.slow
PATIENCE = 600  # seconds; bounds a hang, nothing else


class Started:
    """A run whose second task waits."""

    def __init__(self, place: Path, kind: str, *more: str) -> None:
        self.place = place
        self.output = place / "runs"
        self.process = subprocess.Popen(
            self.command(kind, *more),
            cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.directory = wait_for(lambda: next((path.parent for path in self.output.glob("*/waits")), None))

    @staticmethod
    def command(kind: str, *more: str) -> list[str]:
        given = ["waiting.yaml", "--local", "--param", f"kind={kind}"]
        return [sys.executable, "-m", "ocrmem", "pipeline", "run", *given, *more]

    @property
    def record(self) -> Record:
        return read_records(self.directory)["train"]

    def end(self) -> tuple[int, str]:
        """Wait for the end of the run and of the task's process."""
        task = self.record.pid
        assert task is not None
        _, err = self.process.communicate(timeout=PATIENCE)
        wait_for(lambda: not psutil.pid_exists(task))
        return self.process.returncode, err

    def resumed(self, kind: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(kind, "--resume", self.directory.name),
            cwd=self.place, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Started]]:
    compiler.Compiler().compile(waiting, str(tmp_path / "waiting.yaml"))
    (tmp_path / "params.yaml").write_text("{}\n", encoding="utf-8")
    runs: list[Started] = []

    def begin(kind: str) -> Started:
        runs.append(Started(tmp_path, kind))
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        run.process.communicate()


def wait_for(look: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.05)
    raise TimeoutError(look)


def test_sigterm_to_the_run_is_75_and_resume_goes_on_where_it_was(start: Callable[[str], Started]) -> None:
    run = start("training")
    run.process.send_signal(signal.SIGTERM)
    code, err = run.end()
    assert code == 75, err
    [line] = [line for line in err.splitlines() if line.split()[:1] == ["train"]]
    assert line.split()[1] == "stopped"
    assert "was stopped by SIGTERM after step 3" in line
    assert f"Run the same command again with --resume {run.directory.name}." in err.splitlines()[-1]
    assert "Traceback" not in err

    done = run.resumed("training")
    assert done.returncode == 0, done.stderr
    assert ["base", "cached"] in [line.split()[:2] for line in done.stderr.splitlines()]
    assert "2 tasks, 1 of them cached" in done.stdout
    assert json.loads((run.directory / "summary.json").read_text(encoding="utf-8"))["state"] == "SUCCEEDED"


def test_a_run_that_is_killed_takes_its_task_along(start: Callable[[str], Started]) -> None:
    run = start("training")
    run.process.kill()
    code, _ = run.end()
    assert code == -signal.SIGKILL
    assert (run.record.status, run.record.exit_code) == ("stopped", 75)
    [problem] = run.record.problems
    assert "the process that ran the pipeline has ended" in problem["message"]
    assert "--resume" in problem["remedy"]
    assert "was stopped by SIGTERM after step 3" in (run.directory / "log.txt").read_text(encoding="utf-8")
    assert run.resumed("training").returncode == 0


def test_a_task_that_is_killed_is_not_blamed_for_an_error(start: Callable[[str], Started]) -> None:
    run = start("work")
    task = run.record.pid
    assert task is not None
    os.kill(task, signal.SIGKILL)
    code, err = run.end()
    assert code == 1
    assert ["train", "killed"] in [line.split()[:2] for line in err.splitlines()]
    assert f"train: process {task} was killed and could not say why" in err


def test_ctrl_c_is_the_tasks_only_once_and_a_second_one_kills_it(start: Callable[[str], Started]) -> None:
    run = start("deaf")
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal sends it
    assert run.process.stderr is not None
    while "Send it again to stop at once" not in run.process.stderr.readline():
        assert run.process.poll() is None
    time.sleep(1.1)  # before that it is the same request
    os.killpg(run.process.pid, signal.SIGINT)
    code, _ = run.end()
    assert code == 130


def test_a_run_to_resume_is_named_right(start: Callable[[str], Started], tmp_path: Path) -> None:
    run = start("work")
    busy = run.resumed("work")
    assert busy.returncode == 2
    assert "is being written by another `ocrmem pipeline run`" in busy.stderr
    os.kill(run.record.pid or 0, signal.SIGTERM)  # the task alone, as somebody might
    code, err = run.end()
    assert code == 75, err
    assert (run.record.status, run.record.exit_code) == ("stopped", 143)
    none = subprocess.run(Started.command("work", "--resume", "other"), cwd=tmp_path, capture_output=True, text=True)
    assert none.returncode == 2
    assert f"--resume: other is not a run in {tmp_path / 'runs'}. Name one of {run.directory.name}." in none.stderr
