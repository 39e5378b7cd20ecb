"""`ocrmem train` as a real command on several processes, for tests that interrupt, kill and starve it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.ranks import environment

from ocrmem.training.checkpoint import CheckpointStore

DEADLINE = 900.0  # seconds; bounds a hang, nothing else


class Launched:
    """A running ``ocrmem train``: where it writes checkpoints, and who its ranks are."""

    def __init__(self, root: Path, *options: str) -> None:
        self.checkpoints = root / "checkpoints"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ocrmem", "train", "--config", "params.yaml", *options],
            cwd=root,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_step(self, step: int) -> None:
        """Until a checkpoint of at least this step is there."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            if any(int(path.name.partition("-")[2]) >= step for path in CheckpointStore(self.checkpoints).paths()):
                return
            if self.process.poll() is not None:
                pytest.fail(f"ended by itself: {self.process.communicate()}")
            time.sleep(0.02)
        self.process.kill()
        pytest.fail("no checkpoint came")

    def ranks(self) -> dict[int, psutil.Process]:
        """The worker processes by rank."""
        children = psutil.Process(self.process.pid).children()
        return {int(child.environ()["RANK"]): child for child in children if "RANK" in child.environ()}

    def finish(self) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        stdout, stderr = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, stdout, stderr


def write_settings(root: Path, values: dict[str, Any]) -> None:
    """params.yaml of a run in ``root``."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(json.dumps(values), encoding="utf-8")


def only_object(stdout: str) -> dict[str, Any]:
    """The one JSON object that stdout holds, and nothing else."""
    (line,) = stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found
