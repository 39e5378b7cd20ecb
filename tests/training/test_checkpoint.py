"""Checkpoints are whole or absent, and belong to one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ocrmem.errors import TrainingError
from ocrmem.training import checkpoint as store


class Small(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.proj = nn.Linear(width, 2)


def write(directory: Path, step: int, identity: dict[str, Any] | None = None) -> Path:
    temporary = store.staging(directory, step)
    temporary.mkdir(parents=True)
    save_file(store.proj_state(Small()), temporary / store.PROJ_FILE)
    (temporary / "optimizer.safetensors").write_bytes(b"state" * 10)
    return store.seal(directory, step, identity or {"seed": 1}, 0.1, step)


def test_newest_is_by_step_not_by_time(tmp_path: Path) -> None:
    for step in (100, 9):
        write(tmp_path, step)
    newest = store.newest_complete(tmp_path)
    assert newest is not None
    assert (newest.step, newest.path.name) == (100, "checkpoint-100")


def test_open_loss_keeps_every_digit(tmp_path: Path) -> None:
    loss = float(torch.tensor(1 / 3))
    store.staging(tmp_path, 1).mkdir(parents=True)
    path = store.seal(tmp_path, 1, {}, loss, 0)
    assert store.open_checkpoint(path).open_loss == loss


def damage_missing(path: Path) -> None:
    (path / "optimizer.safetensors").unlink()


def damage_truncated(path: Path) -> None:
    (path / "optimizer.safetensors").write_bytes(b"sta")


def damage_bit(path: Path) -> None:
    (path / "optimizer.safetensors").write_bytes(b"stake" * 10)


def damage_unsealed(path: Path) -> None:
    (path / store.COMPLETE).unlink()


def damage_half_sealed(path: Path) -> None:
    (path / store.COMPLETE).write_text('{"step": 2, "ident', encoding="utf-8")


def damage_other_format(path: Path) -> None:
    (path / store.COMPLETE).write_text("[]", encoding="utf-8")


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
        store.open_checkpoint(tmp_path / "checkpoint-2")
    newest = store.newest_complete(tmp_path)
    assert newest is not None
    assert newest.step == 1


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    assert store.newest_complete(tmp_path / "nowhere") is None
    assert store.newest_complete(tmp_path) is None


def test_rotation_keeps_the_newest_and_clears_leftovers(tmp_path: Path) -> None:
    for step in (2, 10, 4):
        write(tmp_path, step)
    (tmp_path / ".checkpoint-6.new").mkdir()
    (tmp_path / ".checkpoint-1.old").mkdir()
    (tmp_path / "notes").mkdir()
    store.rotate(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-4", "notes"]


def test_sealing_twice_replaces(tmp_path: Path) -> None:
    write(tmp_path, 2, {"seed": 1})
    path = write(tmp_path, 2, {"seed": 2})
    assert store.open_checkpoint(path).identity == {"seed": 2}


def test_set_aside_moves_checkpoints_and_replaces_the_ones_moved_before(tmp_path: Path) -> None:
    write(tmp_path, 1)
    assert store.set_aside(tmp_path) == ["checkpoint-1"]
    write(tmp_path, 5)
    (tmp_path / "mine.txt").write_text("kept", encoding="utf-8")
    assert store.set_aside(tmp_path) == ["checkpoint-5"]
    assert [path.name for path in (tmp_path / "previous").iterdir()] == ["checkpoint-5"]
    assert (tmp_path / "mine.txt").exists()
    assert store.set_aside(tmp_path) == []


def test_checkpoint_of_another_run_names_every_difference(tmp_path: Path) -> None:
    found = store.open_checkpoint(write(tmp_path, 3, {"seed": 1, "learning_rate": 0.1, "samples": 4}))
    store.require_same_run(found, {"seed": 1, "learning_rate": 0.1, "samples": 4})
    with pytest.raises(TrainingError) as error:
        store.require_same_run(found, {"seed": 1, "learning_rate": 0.2, "samples": 5})
    assert "learning_rate was 0.1 and is 0.2; samples was 4 and is 5" in str(error.value)
    assert "seed" not in str(error.value)


def test_proj_round_trip_holds_nothing_frozen(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    source, target = Small(), Small()
    save_file(store.proj_state(source), tmp_path / "proj.safetensors")
    assert set(load_file(tmp_path / "proj.safetensors")) == {"weight", "bias"}
    store.load_proj(target, tmp_path / "proj.safetensors")
    assert torch.equal(source.proj.weight, target.proj.weight)


def test_proj_of_another_shape_or_a_broken_file_is_refused(tmp_path: Path) -> None:
    save_file(store.proj_state(Small(4)), tmp_path / "proj.safetensors")
    with pytest.raises(TrainingError, match=r"holds a projector of .*\[2, 4\].*\[2, 3\]"):
        store.load_proj(Small(), tmp_path / "proj.safetensors")
    (tmp_path / "proj.safetensors").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="cannot be read"):
        store.load_proj(Small(), tmp_path / "proj.safetensors")
