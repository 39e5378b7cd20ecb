"""A run on two ranks that goes wrong says so once, with step and samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.launched import Launched, only_object, write_settings

from ocrmem.dataset.memory_dataset import MemoryDataset

pytestmark = pytest.mark.slow


def test_diverging_run_names_step_and_samples_once_and_keeps_no_bad_checkpoint(
    values: Callable[..., dict[str, Any]], inputs: Path, tmp_path: Path
) -> None:
    train = {"learning_rate": 1e38, "max_steps": 8, "save_steps": 1, "per_device_batch_size": 2}
    write_settings(tmp_path, values(tmp_path, **train))
    code, stdout, stderr = Launched(tmp_path, "--nproc", "2", "--json").finish()
    assert code == 1, stderr
    (problem,) = only_object(stdout)["problems"]
    step = int(problem["place"].removeprefix("step "))
    names = {sample.id for sample in MemoryDataset.open(inputs / "dataset").samples("train")}
    assert any(name in problem["message"] for name in names)
    assert " is nan" in problem["message"] or " is inf" in problem["message"]
    assert "learning rate" in problem["remedy"]
    assert "Traceback" not in stderr
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()} if step > 1 else set()
    assert f"checkpoint-{step}" not in left
    assert not (tmp_path / "adapter").exists()
