"""Checkpoints on disk: complete or absent, small, and tied to the run they belong to.

``checkpoint-N`` is written under a temporary name and renamed, so a kill leaves none or a whole one. Its
``complete.json`` lists every file with size and sha256 (which also finds a truncated copy), the step, and
the identity of the run: everything on which the sequence of losses depends. In it lie::

    proj.safetensors     the trained weights; frozen weights are never written
    optimizer.safetensors   the optimizer's state, put together from all processes
    scheduler.pt, rng_state*.pth, scaler.pt   as Hugging Face's Trainer writes them
    trainer_state.json   progress and the log
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ocrmem import console
from ocrmem.errors import TrainingError
from ocrmem.files import sha256_file, write_json
from ocrmem.training.zero3 import gathered

COMPLETE = "complete.json"
PROJ_FILE = "proj.safetensors"
PREVIOUS = "previous"
_NAME = re.compile(r"checkpoint-(\d+)")
_LEFTOVER = re.compile(r"\.checkpoint-\d+\.(new|old)")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        path: its folder.
        step: optimizer steps done.
        identity: what the run's losses depend on, as plain values.
        open_loss: sum of the losses since the last log entry, float32 exact.
        logged_step: the step of that log entry.
    """

    path: Path
    step: int
    identity: dict[str, Any]
    open_loss: float
    logged_step: int


def staging(directory: Path, step: int) -> Path:
    """The temporary folder that becomes ``checkpoint-N`` when it is sealed."""
    return directory / f".checkpoint-{step}.new"


def seal(directory: Path, step: int, identity: Mapping[str, Any], open_loss: float, logged_step: int) -> Path:
    """List the files of the temporary folder and give it its name."""
    temporary, final = staging(directory, step), directory / f"checkpoint-{step}"
    files = sorted(path for path in temporary.rglob("*") if path.is_file())
    write_json(
        temporary / COMPLETE,
        {
            "step": step,
            "identity": dict(identity),
            "open_loss": open_loss,
            "logged_step": logged_step,
            "files": {
                path.relative_to(temporary).as_posix(): {
                    "bytes": path.stat().st_size,
                    "sha256": sha256_file(path),
                }
                for path in files
            },
        },
    )
    if final.exists():
        _remove(final)
    temporary.rename(final)
    return final


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check that it is whole.

    Raises:
        TrainingError: a file is missing or differs from what was written.
    """
    try:
        about = json.loads((path / COMPLETE).read_text(encoding="utf-8"))
        found = Checkpoint(path, about["step"], about["identity"], about["open_loss"], about["logged_step"])
        files = about["files"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError.of(
            str(path), f"is not a complete checkpoint: {COMPLETE} is missing or damaged ({error})", _ANOTHER
        ) from None
    for name, expected in files:
        file = path / name
        if not file.is_file() or file.stat().st_size != expected["bytes"]:
            raise TrainingError.of(str(file), "is missing or was cut short", _ANOTHER)
        if sha256_file(file) != expected["sha256"]:
            raise TrainingError.of(str(file), "is not what was written: its sha256 differs", _ANOTHER)
    return found


def newest_complete(directory: Path) -> Checkpoint | None:
    """The complete checkpoint with the most steps; damaged ones are passed over with a note."""
    for path in reversed(all_checkpoints(directory)):
        try:
            return open_checkpoint(path)
        except TrainingError as error:
            console.note(f"Warning: passing over {path}: {error.problems[0].message}")
    return None


def all_checkpoints(directory: Path) -> list[Path]:
    """The folders named ``checkpoint-N``, fewest steps first, complete or not."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=_step_of)


def rotate(directory: Path, keep: int | None) -> None:
    """Delete all but the ``keep`` newest checkpoints, and what interrupted runs left half written."""
    for path in directory.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
    if keep is not None and keep > 0:
        for path in all_checkpoints(directory)[:-keep]:
            _remove(path)


def set_aside(directory: Path) -> list[str]:
    """Move the checkpoints of an earlier run to ``previous/``, in place of what lay there.

    A run that was started anew by mistake can so be taken back.

    Returns:
        The names of what was moved.
    """
    checkpoints = all_checkpoints(directory)
    if not checkpoints:
        return []
    previous = directory / PREVIOUS
    shutil.rmtree(previous, ignore_errors=True)
    previous.mkdir(parents=True)
    for path in checkpoints:
        path.rename(previous / path.name)
    return [path.name for path in checkpoints]


def require_same_run(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
    """Refuse to go on from the checkpoint of a run with other settings, data or models.

    Raises:
        TrainingError: names every difference.
    """
    names = sorted(set(checkpoint.identity) | set(identity))
    differences = [
        f"{name} was {checkpoint.identity.get(name)!r} and is {identity.get(name)!r}"
        for name in names
        if checkpoint.identity.get(name) != identity.get(name)
    ]
    if differences:
        raise TrainingError.of(
            str(checkpoint.path),
            "belongs to another run: " + "; ".join(differences),
            "Put these back to go on, or train without --resume to start anew",
        )


def proj_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of proj's parameters and buffers on the CPU, in their own dtype; all processes call this together."""
    proj = _proj(model)
    with gathered(proj.parameters()):
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in proj.state_dict().items()}


def load_proj(model: nn.Module, path: Path) -> None:
    """Read into proj what `proj_state` gave; all processes call this together.

    Raises:
        TrainingError: the file is damaged, or holds other names or shapes than this model's proj.
    """
    proj = _proj(model)
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError.of(str(path), f"cannot be read ({error})", _ANOTHER) from None
    with gathered(proj.parameters(), writer=0), torch.no_grad():
        expected = {name: list(tensor.shape) for name, tensor in proj.state_dict().items()}
        found = {name: list(tensor.shape) for name, tensor in state.items()}
        if expected != found:
            raise TrainingError.of(
                str(path),
                f"holds a projector of {found}, but the model's is {expected}",
                "Resume with the model settings of that run, or train without --resume",
            )
        proj.load_state_dict(state)


_ANOTHER = "Resume from another checkpoint, or train without --resume to start anew"


def _proj(model: nn.Module) -> nn.Module:
    return model.get_submodule("proj")


def _step_of(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match.group(1)) if match else -1


def _remove(path: Path) -> None:
    """Delete a checkpoint so that a kill in between leaves no half of it under its name."""
    doomed = path.with_name(f".{path.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
