"""Checkpoints are whole or absent, and belong to one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ocrmem.errors import TrainingError
from ocrmem.training.checkpoint import COMPLETE, PROJ_FILE, Checkpoint, CheckpointStore, load_trained, trained_state


class Small(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.proj = nn.Linear(width, 2)


def write(directory: Path, step: int, identity: dict[str, Any] | None = None, open_loss: float = 0.1) -> Path:
    def shared(folder: Path) -> None:
        save_file(trained_state(Small()), folder / PROJ_FILE)
        (folder / "optimizer.safetensors").write_bytes(b"state" * 10)

    CheckpointStore(directory).save(step, identity or {"seed": 1}, open_loss, step, shared=shared)
    return directory / f"checkpoint-{step}"


def test_newest_is_by_step_not_by_time(tmp_path: Path) -> None:
    for step in (100, 9):
        write(tmp_path, step)
    newest = CheckpointStore(tmp_path).newest_complete()
    assert newest is not None
    assert (newest.step, newest.path.name) == (100, "checkpoint-100")


def test_open_loss_keeps_every_digit(tmp_path: Path) -> None:
    loss = float(torch.tensor(1 / 3))
    assert Checkpoint.open(write(tmp_path, 1, open_loss=loss)).open_loss == loss


def damage_missing(path: Path) -> None:
    (path / "optimizer.safetensors").unlink()


def damage_truncated(path: Path) -> None:
    (path / "optimizer.safetensors").write_bytes(b"sta")


def damage_bit(path: Path) -> None:
    (path / "optimizer.safetensors").write_bytes(b"stake" * 10)


def damage_unsealed(path: Path) -> None:
    (path / COMPLETE).unlink()


def damage_half_sealed(path: Path) -> None:
    (path / COMPLETE).write_text('{"step": 2, "ident', encoding="utf-8")


def damage_other_format(path: Path) -> None:
    (path / COMPLETE).write_text("[]", encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_missing, "missing or was cut short"),
        (damage_truncated, "missing or was cut short"),
        (damage_bit, "sha256 differs"),
        (damage_unsealed, "not a complete checkpoint"),
        (damage_half_sealed, "not a complete checkpoint"),
        (damage_other_format, "not a complete checkpoint"),
    ],
)
def test_damaged_checkpoint_is_refused_and_passed_over(tmp_path: Path, damage: Any, message: str) -> None:
    write(tmp_path, 1)
    damage(write(tmp_path, 2))
    with pytest.raises(TrainingError, match=message):
        Checkpoint.open(tmp_path / "checkpoint-2")
    newest = CheckpointStore(tmp_path).newest_complete()
    assert newest is not None
    assert newest.step == 1


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "nowhere").newest_complete() is None
    assert CheckpointStore(tmp_path).newest_complete() is None


def test_pruning_keeps_the_newest_and_clears_leftovers(tmp_path: Path) -> None:
    for step in (2, 10, 4):
        write(tmp_path, step)
    (tmp_path / ".checkpoint-6.new").mkdir()
    (tmp_path / ".checkpoint-1.old").mkdir()
    (tmp_path / "notes").mkdir()
    CheckpointStore(tmp_path, keep=2).prune()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-4", "notes"]


def test_saving_a_step_twice_replaces_it(tmp_path: Path) -> None:
    write(tmp_path, 2, {"seed": 1})
    path = write(tmp_path, 2, {"seed": 2})
    assert Checkpoint.open(path).identity == {"seed": 2}


def test_set_aside_moves_checkpoints_and_replaces_the_ones_moved_before(tmp_path: Path) -> None:
    write(tmp_path, 1)
    assert CheckpointStore(tmp_path).set_aside() == ["checkpoint-1"]
    write(tmp_path, 5)
    (tmp_path / "mine.txt").write_text("kept", encoding="utf-8")
    assert CheckpointStore(tmp_path).set_aside() == ["checkpoint-5"]
    assert [path.name for path in (tmp_path / "previous").iterdir()] == ["checkpoint-5"]
    assert (tmp_path / "mine.txt").exists()
    assert CheckpointStore(tmp_path).set_aside() == []


def test_checkpoint_of_another_run_names_every_difference(tmp_path: Path) -> None:
    found = Checkpoint.open(write(tmp_path, 3, {"seed": 1, "learning_rate": 0.1, "samples": 4}))
    found.require_same_run({"seed": 1, "learning_rate": 0.1, "samples": 4})
    with pytest.raises(TrainingError) as error:
        found.require_same_run({"seed": 1, "learning_rate": 0.2, "samples": 5})
    assert "learning_rate was 0.1 and is 0.2; samples was 4 and is 5" in str(error.value)
    assert "seed" not in str(error.value)


def test_proj_round_trip_holds_nothing_frozen(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    source, target = Small(), Small()
    save_file(trained_state(source), tmp_path / "proj.safetensors")
    assert set(load_file(tmp_path / "proj.safetensors")) == {"weight", "bias"}
    load_trained(target, tmp_path / "proj.safetensors")
    assert torch.equal(source.proj.weight, target.proj.weight)


def test_proj_of_another_shape_or_a_broken_file_is_refused(tmp_path: Path) -> None:
    save_file(trained_state(Small(4)), tmp_path / "proj.safetensors")
    with pytest.raises(TrainingError, match=r"1 of its tensors are not.*: weight \[2, 4\] for \[2, 3\]"):
        load_trained(Small(), tmp_path / "proj.safetensors")
    (tmp_path / "proj.safetensors").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="cannot be read"):
        load_trained(Small(), tmp_path / "proj.safetensors")
