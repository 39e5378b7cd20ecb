"""Checkpoints on disk: complete or absent, small, and tied to the run they belong to.

``checkpoint-N`` is written under a temporary name and renamed, so a kill leaves none or a whole one. Its
``complete.json`` lists every file with size and sha256 (which also finds a truncated copy), the step, and
the identity of the run: everything on which the sequence of losses depends. It holds::

    proj.safetensors     the trained weights, LoRA's among them; frozen weights are never written
    optimizer.safetensors   the optimizer's state, put together from all processes
    scheduler.pt, rng_state*.pth, scaler.pt   as Hugging Face's Trainer writes them
    trainer_state.json   progress and the log
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ocrmem import console
from ocrmem.errors import MissingInputError, Problem, TrainingError, first_line
from ocrmem.facts import PROJ
from ocrmem.files import sha256_file, write_json
from ocrmem.json_files import CheckpointRecord, read_json, with_sha256
from ocrmem.model.ocr_mem_files import weights_file
from ocrmem.model.trainable import lora_of
from ocrmem.training import collectives
from ocrmem.training.zero3 import gathered

COMPLETE = "complete.json"
PROJ_FILE = "proj.safetensors"
PREVIOUS = "previous"
ANOTHER = "Resume from another checkpoint, or train without --resume to start again"
_FOREIGN = (
    "It is not of ocrmem: run `ocrmem import-adapter {} --output imported`, then `ocrmem train --from-adapter imported`"
)
_NAME = re.compile(r"checkpoint-\d+")
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

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Read a checkpoint and check that it is whole.

        Raises:
            TrainingError: a file is missing or differs from what was written.
        """
        try:
            about = read_json(path / COMPLETE, CheckpointRecord, made_by="train")
        except MissingInputError as error:
            message = f"is not a complete checkpoint: {COMPLETE} {error.problems[0].message}"
            remedy = _FOREIGN.format(path) if weights_file(path) else ANOTHER
            raise TrainingError.of(str(path), message, remedy) from None
        for name, expected in about["files"].items():
            file = path / name
            if not file.is_file() or file.stat().st_size != expected["bytes"]:
                raise TrainingError.of(str(file), "is missing or was cut short", ANOTHER)
            if sha256_file(file) != expected["sha256"]:
                raise TrainingError.of(str(file), "is not what was written: its sha256 differs", ANOTHER)
        return cls(path, about["step"], about["identity"], about["open_loss"], about["logged_step"])

    def require_same_run(self, identity: Mapping[str, Any], remedy: str = "Put these back to resume") -> None:
        """Refuse to resume a run with other settings, data or models.

        Args:
            identity: of the run that would resume.
            remedy: what puts back how it was.

        Raises:
            TrainingError: names every difference.
        """
        differences = [
            f"{name} was {self.identity.get(name)!r} and is {identity.get(name)!r}"
            for name in sorted(set(self.identity) | set(identity))
            if self.identity.get(name) != identity.get(name)
        ]
        if differences:
            raise TrainingError.of(
                str(self.path),
                "belongs to another run: " + "; ".join(differences),
                f"{remedy}, or train without --resume to start again",
            )


@dataclass
class CheckpointStore:
    """The checkpoints of one run, in one directory.

    Args:
        directory: holds ``checkpoint-N``; made by the first `save`.
        keep: how many of the newest `prune` leaves; None or 0: all.
        is_writer: whether this process writes what all processes share.
    """

    directory: Path
    keep: int | None = None
    is_writer: bool = True

    def paths(self) -> list[Path]:
        """Return the folders named ``checkpoint-N``, fewest steps first, complete or not."""
        found = [path for path in self.directory.glob("checkpoint-*") if path.is_dir() and _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))

    def newest_complete(self) -> Checkpoint | None:
        """Return the complete checkpoint with the most steps; damaged ones are passed over with a note."""
        for path in reversed(self.paths()):
            try:
                return Checkpoint.open(path)
            except TrainingError as error:
                console.note(f"Warning: passing over {path}: {error.problems[0].message}")
        return None

    def refuse_incomplete(self) -> None:
        """Raise what is wrong with each checkpoint, of which none is complete; all processes see the same ones.

        Raises:
            TrainingError: there are some.
        """
        problems: list[Problem] = []
        for path in self.paths():
            try:
                Checkpoint.open(path)
            except TrainingError as error:
                problems += error.problems
        if problems:
            raise TrainingError(problems)

    def to_resume(self, wanted: str | bool | None) -> Checkpoint | None:
        """Open the checkpoint to resume from; the first process chooses, so that all take the same one.

        Args:
            wanted: its folder; True for the newest complete one; None or False for none.

        Raises:
            TrainingError: there is no such complete checkpoint.
        """
        if not wanted:
            return None
        path = Path(wanted) if isinstance(wanted, str) else None
        if path is None:
            newest = self.newest_complete() if collectives.rank() == 0 else None
            path = collectives.broadcast(newest.path if newest else None)
            if path is None:
                raise TrainingError.of(str(self.directory), "has no complete checkpoint", "Train without resuming")
        return Checkpoint.open(path)

    def save(
        self,
        step: int,
        identity: Mapping[str, Any],
        open_loss: float,
        logged_step: int,
        *,
        shared: Callable[[Path], None],
        own: Callable[[Path], None] = lambda folder: None,
    ) -> None:
        """Write ``checkpoint-step`` and prune older ones; all processes call this together.

        Args:
            step, identity, open_loss, logged_step: as `Checkpoint` has them.
            shared: writes into a folder what the processes share; called in the writer alone.
            own: writes into it what each process has of its own.

        Raises:
            TrainingError: a process could not write its part; the checkpoints before this one are kept.
        """
        folder = self.directory / f".checkpoint-{step}.new"

        def begin() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            shared(folder)

        def finish() -> None:
            files = {
                path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            about = {"step": step, "identity": dict(identity), "open_loss": open_loss, "logged_step": logged_step}
            write_json(folder / COMPLETE, with_sha256(about | {"files": files}))
            final = self.directory / f"checkpoint-{step}"
            if final.exists():
                _remove(final)
            folder.rename(final)
            self.prune()

        self._write(step, folder, begin if self.is_writer else None)
        self._write(step, folder, lambda: own(folder))
        self._write(step, folder, finish if self.is_writer else None)

    def _write(self, step: int, folder: Path, part: Callable[[], None] | None) -> None:
        """Write a part of a checkpoint; when one process cannot, all stop with its error."""
        failure: str | None = None
        try:
            if part is not None:
                part()
        # torch reports a full disk as RuntimeError, safetensors as its own error.
        except (OSError, RuntimeError, SafetensorError) as error:
            failure = first_line(error)
        failures = [text for text in collectives.gather(failure) if text]
        if failures:
            if self.is_writer:
                shutil.rmtree(folder, ignore_errors=True)
            raise TrainingError.of(
                str(self.directory),
                f"the checkpoint of step {step} could not be written ({failures[0]})",
                "Free space or make it writable, then run `ocrmem train --resume`; the checkpoint before it is kept",
            )

    def prune(self) -> None:
        """Delete all but the newest checkpoints, and what interrupted runs left half written."""
        for path in self.directory.iterdir():
            if _LEFTOVER.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)
        if self.keep is not None and self.keep > 0:
            for path in self.paths()[: -self.keep]:
                _remove(path)

    def set_aside(self) -> list[str]:
        """Move the checkpoints of an earlier run to ``previous/``, in place of what lay there.

        A run that was started from its first step by mistake can be taken back that way. Return the names of what
        was moved.

        Raises:
            TrainingError: one is another program's; the run after next would delete it.
        """
        checkpoints = self.paths()
        if foreign := next(filter(weights_file, checkpoints), None):
            message = "is not of ocrmem, and would be moved away for the checkpoints of this run"
            raise TrainingError.of(str(foreign), message, "Name another directory in paths.checkpoints")
        if checkpoints:
            previous = self.directory / PREVIOUS
            shutil.rmtree(previous, ignore_errors=True)
            previous.mkdir(parents=True)
            for path in checkpoints:
                path.rename(previous / path.name)
        return [path.name for path in checkpoints]


def trained_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of what is trained on the CPU, in its own dtype; all processes call this together.

    It is proj's parameters and buffers, by their names in proj, and LoRA's weights, by theirs in an adapter's file.
    """
    proj, lora = model.get_submodule(PROJ), lora_of(model)
    with gathered([*proj.parameters(), *lora.values()]):
        state = proj.state_dict() | lora
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}


def load_trained(model: nn.Module, path: Path) -> None:
    """Read into a model what `trained_state` gave; all processes call this together.

    Raises:
        TrainingError: the file is damaged, or holds other names or shapes than this model trains.
    """
    proj, lora = model.get_submodule(PROJ), lora_of(model)
    state = read_tensors(path)
    with gathered([*proj.parameters(), *lora.values()], writer=0), torch.no_grad():
        own = proj.state_dict() | lora
        expected = {name: list(tensor.shape) for name, tensor in own.items()}
        found = {name: list(tensor.shape) for name, tensor in state.items()}
        if odd := [name for name in sorted(expected | found) if expected.get(name) != found.get(name)]:
            shapes = [f"{name} {found.get(name, 'missing')} for {expected.get(name, 'nothing')}" for name in odd[:4]]
            raise TrainingError.of(
                str(path),
                f"{len(odd)} of its tensors are not those that this model trains: {', '.join(shapes)}",
                "Resume with the settings of that run, or train without --resume",
            )
        for name, tensor in own.items():
            tensor.copy_(state[name])


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint's safetensors file onto the CPU.

    Raises:
        TrainingError: it is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError.of(str(path), f"cannot be read ({error})", ANOTHER) from None


def _remove(path: Path) -> None:
    """Delete a checkpoint so that a kill in between leaves no half of it under its name."""
    doomed = path.with_name(f".{path.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
