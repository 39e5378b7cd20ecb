"""A Trainer whose checkpoints hold proj and what belongs to it, and fit any number of processes.

Hugging Face's own checkpoints hold all weights, and under DeepSpeed one file a process. Here one process writes
proj and the optimizer's state, both put together, for plain, data-parallel and ZeRO training alike.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME

from ocrmem.errors import TrainingError, first_line
from ocrmem.training import checkpoint as store
from ocrmem.training import collectives, optimizer_state
from ocrmem.training.arguments import AdapterTrainingArguments


class ResumableTrainer(Trainer):
    """The part of `AdapterOnlyTrainer` that knows about checkpoints."""

    args: AdapterTrainingArguments
    model: nn.Module
    optimizer: Any
    lr_scheduler: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.directory = Path(self.args.output_dir or ".")
        self._resumed: store.Checkpoint | None = None
        self.add_callback(_Continue(self))

    def identity(self) -> dict[str, Any]:
        """What the sequence of losses depends on, as plain values."""
        raise NotImplementedError

    def _find_checkpoint(self, wanted: str | bool | None) -> store.Checkpoint | None:
        """The checkpoint to go on from; the first process chooses, so that all take the same."""
        if not wanted:
            return None
        path = Path(wanted) if isinstance(wanted, str) else None
        if path is None:
            newest = store.newest_complete(self.directory) if self.is_world_process_zero() else None
            path = collectives.broadcast(newest.path if newest else None)
            if path is None:
                raise TrainingError.of(str(self.directory), "has no complete checkpoint", "Train without resuming")
        found = store.open_checkpoint(path)
        store.require_same_run(found, self.identity())
        return found

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None
    ) -> tuple[Any, Any]:
        if resume_from_checkpoint is None or not self.is_deepspeed_enabled:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        # proj's weights go in before DeepSpeed makes its own copies of them; then Trainer is not asked to load
        # anything, for it would look for DeepSpeed's files.
        self._load_from_checkpoint(resume_from_checkpoint)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        return prepared

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        """Write proj, optimizer, scheduler, random states and progress; rename once all is there.

        Raises:
            TrainingError: a process could not write its part; the checkpoints before this one are kept.
        """
        step, temporary = self.state.global_step, store.staging(self.directory, self.state.global_step)
        self.store_flos()
        proj = store.proj_state(self.model)
        optimizer = optimizer_state.collect(self.optimizer, self.model.get_submodule("proj"))
        open_loss = float(self.accelerator.gather(self._tr_loss.reshape(1)).mean())

        def begin() -> None:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            save_file(proj, temporary / store.PROJ_FILE)
            save_file(optimizer, temporary / optimizer_state.OPTIMIZER_FILE)
            torch.save(self.lr_scheduler.state_dict(), temporary / SCHEDULER_NAME)
            self.state.save_to_json(str(temporary / TRAINER_STATE_NAME))
            self._save_scaler(str(temporary))

        def finish() -> None:
            store.seal(self.directory, step, self.identity(), open_loss, self._globalstep_last_logged)
            store.rotate(self.directory, self.args.save_total_limit)

        self._write(begin, only_main=True)
        self._write(lambda: self._save_rng_state(str(temporary)), only_main=False)
        self._write(finish, only_main=True)

    def _write(self, part: Callable[[], None], *, only_main: bool) -> None:
        """Write a part of a checkpoint; when one process cannot, all stop with its error."""
        failure: str | None = None
        if self.args.should_save or not only_main:
            try:
                part()
            # torch reports a full disk as RuntimeError, safetensors as its own error.
            except (OSError, RuntimeError, SafetensorError) as error:
                failure = first_line(error)
        failures = [text for text in collectives.gather(failure) if text]
        if failures:
            if self.args.should_save:
                shutil.rmtree(store.staging(self.directory, self.state.global_step), ignore_errors=True)
            raise TrainingError.of(
                str(self.directory),
                f"the checkpoint of step {self.state.global_step} could not be written ({failures[0]})",
                "Make room or writable, then go on with `ocrmem train --resume`: the checkpoint before it is kept",
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        store.load_proj(self.model, Path(resume_from_checkpoint) / store.PROJ_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        optimizer_state.restore(
            self.optimizer, self.model.get_submodule("proj"), Path(checkpoint) / optimizer_state.OPTIMIZER_FILE
        )
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))
        # The scheduler works out a rate only when it steps: the next optimizer step needs the present one.
        for group, rate in zip(self.optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Random states of this process; where another number of processes has left none, new ones by step."""
        name = f"rng_state_{self.args.process_index}.pth" if self.args.world_size > 1 else "rng_state.pth"
        if checkpoint is None or (Path(checkpoint) / name).is_file():
            super()._load_rng_state(checkpoint)
            return
        seed = (self.args.seed + 7919 * self.state.global_step + 104729 * self.args.process_index) % 2**32
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)


class _Continue(TrainerCallback):
    """Puts back what Trainer resets when it resumes: the losses since the last log entry, the intervals."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # Trainer takes the logging and saving intervals of the checkpoint; the arguments of this run count.
        state.compute_steps(args, state.max_steps)
        resumed = self.trainer._resumed
        if resumed is not None:
            self.trainer._tr_loss = torch.tensor(resumed.open_loss, device=args.device)
            self.trainer._globalstep_last_logged = resumed.logged_step


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Enumerations as their values, so that what is compared is what JSON gives back."""
    return {name: getattr(value, "value", value) for name, value in values.items()}
