"""SIGTERM, kill -9 and truncated checkpoints on real processes, and what resumes from what they left."""

from __future__ import annotations

import csv
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file
from support.launched import Launched, only_object, write_settings

from ocrmem.config import RunConfig
from ocrmem.training.checkpoint import CheckpointStore
from ocrmem.training.train import train

pytestmark = pytest.mark.slow

# Seconds: 30 until torchrun kills what hangs, and what a busy machine adds. A collective itself gives up after 1800.
SOON = 300
LONG = {"max_steps": 150, "save_steps": 3, "logging_steps": 1, "save_total_limit": 3}
Values = Callable[..., dict[str, Any]]


def losses(root: Path) -> list[float]:
    with (root / "reports" / "plots" / "train.csv").open(newline="", encoding="utf-8") as handle:
        return [float(row["loss"]) for row in csv.DictReader(handle)]


def test_preempted_run_resumes_past_a_truncated_checkpoint_on_other_numbers_of_processes(
    values: Values, tmp_path: Path
) -> None:
    write_settings(tmp_path, values(tmp_path, **LONG, global_batch_size=4, per_device_batch_size=2))

    # Two ranks, of which one alone is asked to stop: both save the same step.
    first = Launched(tmp_path, "--nproc", "2", "--deepspeed", "zero2", "--json")
    first.wait_for_step(6)
    first.ranks()[1].send_signal(signal.SIGTERM)
    code, stdout, stderr = first.finish()
    assert code == 75, stderr
    assert "Traceback" not in stderr
    newest = CheckpointStore(tmp_path / "checkpoints").paths()[-1]
    step = int(newest.name.removeprefix("checkpoint-"))
    reported = only_object(stdout)
    assert reported["ok"] is False
    (problem,) = reported["problems"]
    assert f"stopped by SIGTERM after step {step};" in problem["message"]
    assert "--resume" in problem["remedy"]
    assert CheckpointStore(tmp_path / "checkpoints").newest_complete().step == step  # type: ignore[union-attr]

    # One rank resumes from the checkpoint before, for the newest was cut short; the launcher is asked to stop.
    file = newest / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    before = CheckpointStore(tmp_path / "checkpoints").newest_complete()
    assert before is not None
    assert before.step < step
    second = Launched(
        tmp_path, "--nproc", "1", "--deepspeed", "zero3", "--set", "train.per_device_batch_size=4", "--resume"
    )
    second.wait_for_step(step + 1)
    second.process.send_signal(signal.SIGTERM)
    code, _, stderr = second.finish()
    assert code == 75, stderr
    assert stderr.count("Warning: passing over") == 1
    assert f"{newest.name}: " in stderr.replace("\n", " ")
    assert stderr.count("was stopped by SIGTERM after step") == 1

    # The rest in this process, without any launcher: the run that was never interrupted.
    rest = {"per_device_batch_size": 4, "save_steps": 1000, "max_steps": 150, "logging_steps": 1}
    resumed = train(RunConfig.from_dict(values(tmp_path, **rest)), resume=True)
    whole = train(RunConfig.from_dict(values(tmp_path / "whole", **rest)))
    assert resumed["steps"] == whole["steps"] == 150
    assert "from a checkpoint at step" in resumed["summary"][0]
    assert losses(tmp_path) == pytest.approx(losses(tmp_path / "whole"), abs=5e-5)
    expected = load_file(tmp_path / "whole" / "adapter" / "adapter.safetensors")
    # After 150 steps of Adam, which divides gradients by their own size, rounding shows in the smallest of them;
    # test_engines.py holds short runs to 1e-5.
    for name, tensor in load_file(tmp_path / "adapter" / "adapter.safetensors").items():
        assert (tensor - expected[name]).abs().max() < 1e-3, name


@pytest.mark.parametrize("case", ["a rank", "a rank while the other hangs", "the launcher"])
def test_kill_9_ends_all_soon_and_leaves_whole_checkpoints(case: str, values: Values, tmp_path: Path) -> None:
    write_settings(tmp_path, values(tmp_path, **(LONG | {"max_steps": 4000}), per_device_batch_size=2))
    running = Launched(tmp_path, "--nproc", "2")
    running.wait_for_step(3)
    ranks = running.ranks()
    killed = time.monotonic()
    if case == "the launcher":
        running.process.kill()
    else:
        if case == "a rank while the other hangs":
            # As in a collective on a GPU: it answers to no SIGTERM any more.
            ranks[0].send_signal(signal.SIGSTOP)
        ranks[1].kill()
    code, _, stderr = running.finish()
    psutil.wait_procs(list(ranks.values()), timeout=SOON)
    assert not [rank for rank in ranks.values() if rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE]
    assert time.monotonic() - killed < SOON
    newest = CheckpointStore(tmp_path / "checkpoints").newest_complete()
    assert newest is not None
    assert newest.step >= 3
    if case == "the launcher":
        assert code == -signal.SIGKILL
        assert newest.path == CheckpointStore(tmp_path / "checkpoints").paths()[-1]
    else:
        assert code == 1
        assert stderr.count("process 1: was killed by SIGKILL") == 1
        assert "Traceback" not in stderr
