"""Models inside the wrappers of distributed training, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("wrapped_script.py")


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", ["ddp", "zero2", "zero3"])
def test_a_wrapped_model_is_looked_into_and_still_trains_afterwards(wrapper: str) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), wrapper], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert results == ["RESULT healthy []", "RESULT detached ['GF006']", "RESULT stepped True"]
