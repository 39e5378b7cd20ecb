"""Runs a script on several ranks under torchrun, and reads what each rank wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent


def environment() -> dict[str, str]:
    """For child processes that import ocrmem and the tests' support from this checkout; one thread each."""
    return dict(os.environ) | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"}


def unmeasured(variables: Mapping[str, str]) -> dict[str, str]:
    """Without what starts coverage in a child process, which takes seconds of each one that imports torch."""
    return {name: value for name, value in variables.items() if not name.startswith("COVERAGE_")}


def run_ranks(script: str, folder: Path, *, ranks: int = 2) -> list[dict[str, Any]]:
    """Run ``tests/SCRIPT FOLDER`` on some ranks.

    Returns:
        What each wrote to ``FOLDER/rank-N.json``, by rank.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    done = subprocess.run(
        [*torchrun, str(TESTS / script), str(folder)],
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    assert "terminate called" not in done.stderr
    return [json.loads((folder / f"rank-{rank}.json").read_text(encoding="utf-8")) for rank in range(ranks)]
