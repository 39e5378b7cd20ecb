"""A training that was cut off, in whatever way, resumes to the very losses of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.training import logged, standalone_trainer

from ocrmem.errors import TrainingError

TESTS = Path(__file__).resolve().parent.parent

# Trains in a process of its own; kills itself with SIGKILL at a step, or while a checkpoint is written.
CHILD = """
import json, os, signal, sys
import torch
from transformers import TrainerCallback
from support.training import standalone_trainer

options = json.loads(sys.argv[1])
trainer = standalone_trainer(**options["trainer"])

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == options["at_step"]:
            os.kill(os.getpid(), signal.SIGKILL)

if options["in_save"]:
    real, calls = torch.save, []
    def save(*args, **kwargs):
        calls.append(1)
        if len(calls) == options["in_save"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    torch.save = save
else:
    trainer.add_callback(Kill())
trainer.train()
"""


def killed(directory: Path, *, at_step: int = 0, in_save: int = 0, **changes: Any) -> None:
    options = {"trainer": {"directory": str(directory)} | changes, "at_step": at_step, "in_save": in_save}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(options)],
        cwd=TESTS.parent,
        env=dict(os.environ) | {"PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr


def whole(directory: Path, **changes: Any) -> tuple[list[Any], dict[str, torch.Tensor]]:
    trainer = standalone_trainer(directory, **changes)
    trainer.train()
    return logged(trainer), {name: tensor.clone() for name, tensor in trainer.model.proj.state_dict().items()}


def resumed(directory: Path, wanted: str | bool = True, **changes: Any) -> tuple[list[Any], dict[str, Any], Any]:
    trainer = standalone_trainer(directory, **changes)
    trainer.train(resume_from_checkpoint=wanted)
    return logged(trainer), trainer.model.proj.state_dict(), trainer


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_killed_run_resumes_exactly(tmp_path: Path) -> None:
    # 24 samples in batches of 4 are 6 steps an epoch: the kill falls into the fourth one.
    changes = {"max_steps": 20, "save_steps": 7}
    expected, proj = whole(tmp_path / "whole", **changes)
    killed(tmp_path / "cut", at_step=19, **changes)
    found, trained, trainer = resumed(tmp_path / "cut", **changes)
    assert trainer.resumed_step == 14
    assert found == expected
    assert_same(trained, proj)


@pytest.mark.slow
def test_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path: Path) -> None:
    expected, proj = whole(tmp_path / "whole")
    # Each checkpoint calls torch.save for the scheduler and the random states: this is the second one's scheduler.
    killed(tmp_path / "cut", in_save=3)
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == [".checkpoint-4.new", "checkpoint-2"]
    found, trained, trainer = resumed(tmp_path / "cut")
    assert trainer.resumed_step == 2
    assert found == expected
    assert_same(trained, proj)
    assert not list((tmp_path / "cut").glob(".checkpoint-*"))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"save_steps": 6, "max_steps": 18}, id="at the end of an epoch"),
        pytest.param(
            {"gradient_accumulation_steps": 3, "max_steps": 9, "save_steps": 2},
            id="accumulation, short epoch",
        ),
        pytest.param(
            {"gradient_accumulation_steps": 2, "curriculum": 0.5, "max_steps": 8, "save_steps": 3},
            id="accumulation, curriculum",
        ),
        pytest.param({"logging_steps": 4, "max_steps": 12, "save_steps": 6}, id="between two log entries"),
        pytest.param({"optimizer": "muon", "weight_decay": 0.1}, id="muon"),
    ],
)
def test_every_checkpoint_resumes_exactly(tmp_path: Path, changes: dict[str, Any]) -> None:
    expected, proj = whole(tmp_path, **changes)
    checkpoints = sorted(tmp_path.glob("checkpoint-*"))
    assert len(checkpoints) >= 2
    for path in checkpoints:
        found, trained, _ = resumed(tmp_path, str(path), **changes)
        assert found == expected, path.name
        assert_same(trained, proj)


def test_random_states_are_part_of_it(tmp_path: Path) -> None:
    from support.models import small_base, small_config

    from ocrmem.model.modeling import MEMModel

    def with_dropout() -> MEMModel:
        torch.manual_seed(0)
        model = MEMModel(small_config(), small_base(), None)
        model.proj.act = torch.nn.Sequential(model.proj.act, torch.nn.Dropout(0.5))
        return model

    expected, _ = whole(tmp_path, model=with_dropout())
    found, _, _ = resumed(tmp_path, str(tmp_path / "checkpoint-2"), model=with_dropout())
    assert found == expected


def test_finished_run_has_nothing_left_to_train(tmp_path: Path) -> None:
    expected, proj = whole(tmp_path, max_steps=4)
    found, trained, trainer = resumed(tmp_path, max_steps=4)
    assert found == expected
    assert trainer.state.global_step == 4
    assert_same(trained, proj)


def test_damaged_newest_checkpoint_is_passed_over(tmp_path: Path) -> None:
    expected, proj = whole(tmp_path)
    (tmp_path / "checkpoint-6" / "optimizer.safetensors").write_bytes(b"")
    found, trained, trainer = resumed(tmp_path)
    assert trainer.resumed_step == 4
    assert found == expected
    assert_same(trained, proj)


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    whole(tmp_path)
    with pytest.raises(TrainingError, match=r"learning_rate was 0.01 and is 0.02.*without --resume"):
        resumed(tmp_path, learning_rate=0.02)
    with pytest.raises(TrainingError, match=r"curriculum was 0.0 and is 0.5"):
        resumed(tmp_path, curriculum=0.5)


def test_other_frozen_weights_are_refused(tmp_path: Path) -> None:
    from support.models import small_model

    whole(tmp_path)
    with pytest.raises(TrainingError, match="frozen was"):
        resumed(tmp_path, model=small_model(with_encoder=False, seed=1))


def test_saving_and_logging_may_change(tmp_path: Path) -> None:
    expected, proj = whole(tmp_path)
    found, trained, _ = resumed(
        tmp_path, str(tmp_path / "checkpoint-2"), logging_steps=2, save_steps=3, save_total_limit=1
    )
    assert_same(trained, proj)
    assert [row[0] for row in found] == [1, 2, 4, 6]
    assert found[2][1] == pytest.approx((expected[2][1] + expected[3][1]) / 2, rel=1e-6)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-6"]


def test_nothing_to_resume_from(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has no complete checkpoint"):
        resumed(tmp_path)
    with pytest.raises(TrainingError, match="not a complete checkpoint"):
        resumed(tmp_path, str(tmp_path / "nowhere"))
