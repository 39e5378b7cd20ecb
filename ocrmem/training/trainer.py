"""AdapterOnlyTrainer: Hugging Face's Trainer for a model of which only proj is trained."""

from __future__ import annotations

import inspect
import math
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Sampler
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from ocrmem import console
from ocrmem.errors import Problem, TrainingError
from ocrmem.gradflow.check import as_problem, check
from ocrmem.model.trainable import TRAINED
from ocrmem.training import checkpoint as store
from ocrmem.training.arguments import AdapterTrainingArguments
from ocrmem.training.callbacks import BarCallback
from ocrmem.training.curriculum import CurriculumSampler, EpochSampler, memory_lengths
from ocrmem.training.frozen import (
    Fingerprint,
    fingerprint,
    require_only_proj_moved,
    require_only_proj_trainable,
)

# What the sequence of losses depends on; a checkpoint goes on only where these are the same.
_IDENTITY_ARGUMENTS = (
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "world_size",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "seed",
    "data_seed",
    "curriculum",
    "bf16",
    "fp16",
)
# A gradient scaler starts at 2**16 and halves at every overflow: after this many it is at the bottom.
_SCALER_PATIENCE = 17


class AdapterOnlyTrainer(Trainer):
    """Trains ``model.proj`` and proves that nothing else moved.

    Differences from `transformers.Trainer`: a model with other trainable parameters is refused; checkpoints
    hold proj and never the frozen weights, are written atomically, and are gone on from exactly; samples come
    in a curriculum when the arguments ask for one; ``num_items_in_batch`` reaches a forward that names it;
    the log has ``proj_grad_norm``; a loss or gradient that is not finite ends the training; and progress is
    one bar on stderr, nothing on stdout.

    Args:
        model: a module whose parameters outside ``proj`` are frozen, such as `ocrmem.MEMModel`.
        args: how to train.
        identity: further plain values that the losses depend on (hashes of data, say); a checkpoint with
            others is not gone on from.
        tokenizer: the old name of ``processing_class``; accepted with a warning.
        kwargs: as `transformers.Trainer` takes them: data_collator, train_dataset, processing_class,
            callbacks, optimizers and so on.

    Raises:
        TrainingError: something outside proj would be trained, or proj would not.
    """

    args: AdapterTrainingArguments
    model: nn.Module

    def __init__(
        self,
        model: nn.Module,
        args: AdapterTrainingArguments,
        *,
        identity: Mapping[str, Any] | None = None,
        tokenizer: Any = None,
        **kwargs: Any,
    ) -> None:
        if tokenizer is not None:
            if kwargs.get("processing_class") is not None:
                raise TrainingError.of(
                    "AdapterOnlyTrainer",
                    "got both tokenizer and processing_class",
                    "Pass processing_class alone",
                )
            warnings.warn(
                "AdapterOnlyTrainer(tokenizer=...) is the old name: use processing_class=...",
                FutureWarning,
                stacklevel=2,
            )
            kwargs["processing_class"] = tokenizer
        require_only_proj_trainable(model)
        if args.device.type == "cpu":
            # accelerate imports DeepSpeed where it is installed, which would say on stdout: no GPU found.
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # Several GPUs in one process would be DataParallel, which cuts batches along their first axis; the
        # memory of a batch is one flat list of tokens. One process a GPU (torchrun) is the way to use them.
        if args.n_gpu > 1:
            args._n_gpu = 1
        with _config_kept(model):
            super().__init__(model=model, args=args, **kwargs)
        self.directory = Path(args.output_dir or ".")
        for printing in (PrinterCallback, ProgressCallback):
            self.remove_callback(printing)
        if "num_items_in_batch" in inspect.signature(model.forward).parameters:
            self.model_accepts_loss_kwargs = True
        self._before: Fingerprint | None = None
        self._after: Fingerprint | None = None
        self.resumed_step = 0
        self._extra_identity = dict(identity or {})
        self._sampler: EpochSampler | CurriculumSampler | None = None
        self._overflows = 0
        self._resumed: store.Checkpoint | None = None
        self.add_callback(_Continue(self))

    def train(  # type: ignore[override]
        self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any
    ) -> TrainOutput:
        """Train, and check afterwards that proj moved and nothing else did.

        Args:
            resume_from_checkpoint: a checkpoint's folder, or True for the newest complete one.
            kwargs: as `transformers.Trainer.train` takes them.

        Raises:
            TrainingError: no complete checkpoint, or one of another run; a loss or gradient that is not
                finite, with its step; a frozen tensor that changed, or a proj that did not.
        """
        self._before, self._after = fingerprint(self.model), None
        self._resumed = self._find_checkpoint(resume_from_checkpoint)
        self.resumed_step = self._resumed.step if self._resumed else 0
        if self._resumed and 0 < self.args.max_steps <= self._resumed.step:
            result = self._take_finished(self._resumed)
        else:
            with self._bar(), _config_kept(self.model):
                result = super().train(
                    resume_from_checkpoint=str(self._resumed.path) if self._resumed else None, **kwargs
                )
        self._after = fingerprint(self.model)
        require_only_proj_moved(self._before, self._after)
        return result

    def fingerprints(self) -> tuple[Fingerprint, Fingerprint]:
        """The model's hashes before and after `train`.

        Raises:
            TrainingError: nothing has been trained.
        """
        if self._before is None or self._after is None:
            raise TrainingError.of("AdapterOnlyTrainer", "has not finished a training", "Call train() first")
        return self._before, self._after

    def identity(self) -> dict[str, Any]:
        """What the sequence of losses depends on, as plain values."""
        if self._before is None:
            self._before = fingerprint(self.model)
        values = {name: getattr(self.args, name) for name in _IDENTITY_ARGUMENTS}
        plain = {name: getattr(value, "value", value) for name, value in values.items()}
        dataset: Any = self.train_dataset
        size = len(dataset) if hasattr(dataset, "__len__") else None
        return plain | {"samples": size, "frozen": self._before.frozen_hash} | self._extra_identity

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """One forward and backward; see `transformers.Trainer.training_step`.

        Raises:
            TrainingError: the batch is longer than ``max_seq_length``, the loss is not finite, or no gradient
                reaches proj; the last carries the gradient doctor's findings.
        """
        length = inputs["input_ids"].shape[-1] if "input_ids" in inputs else 0
        if length > self.args.max_seq_length:
            raise TrainingError.of(
                self._step_name(),
                f"a batch is {length} tokens long, but max_seq_length is {self.args.max_seq_length}",
                "Build the data for this length (`ocrmem render`), or raise max_seq_length",
            )
        try:
            loss = super().training_step(model, inputs, num_items_in_batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise self._diagnosed(error, inputs) from error
        if not torch.isfinite(loss).all():
            raise TrainingError.of(
                self._step_name(), f"the loss is {loss.item()}", _NOT_FINITE.format(self.args.learning_rate)
            )
        return loss

    def _diagnosed(self, error: RuntimeError, inputs: Mapping[str, Any]) -> RuntimeError | TrainingError:
        """The error with its cause, where the doctor finds one: PyTorch's own text has eight."""
        report = check(self.model, self._prepare_inputs(dict(inputs)), TRAINED)
        problems = [as_problem(found) for found in report.findings if found.severity == "error"]
        if not problems:
            return error
        told = Problem(self._step_name(), str(error).strip().splitlines()[0], "See what follows for the cause")
        return TrainingError([told, *problems])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Record logs; the norm of all trained gradients is proj's, and is named so."""
        if "grad_norm" in logs:
            logs["proj_grad_norm"] = logs.pop("grad_norm")
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter: ``model.save_pretrained`` of a MEMModel, which holds no frozen weights."""
        target = Path(output_dir) if output_dir else self.directory
        if self.args.should_save:
            target.mkdir(parents=True, exist_ok=True)
            if isinstance(self.model, PreTrainedModel):
                self.model.save_pretrained(str(target))
            else:
                store.save_proj(self.model, target / store.PROJ_FILE)
        self.accelerator.wait_for_everyone()

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The norm of proj's gradient before clipping; refuses one that is not finite."""
        norm = super()._get_grad_norm(model, grad_norm)
        if math.isfinite(float(norm)):
            self._overflows = 0
            return norm
        self._overflows += 1
        # With float16 a gradient scaler skips such a step and lowers its scale: that is its normal work.
        if self.accelerator.scaler is not None and self._overflows < _SCALER_PATIENCE:
            return norm
        raise TrainingError.of(
            self._step_name(),
            f"the gradient norm of proj is {float(norm)}",
            _NOT_FINITE.format(self.args.learning_rate),
        )

    @contextmanager
    def _bar(self) -> Iterator[None]:
        """One progress bar a run: only the first process has it."""
        if not self.is_world_process_zero():
            yield
            return
        with console.progress_bar("train", self.args.max_steps if self.args.max_steps > 0 else None) as bar:
            showing = BarCallback(bar)
            self.add_callback(showing)
            try:
                yield
            finally:
                self.remove_callback(showing)

    def _step_name(self) -> str:
        return f"step {self.state.global_step + 1}"

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        dataset: Any = train_dataset if train_dataset is not None else self.train_dataset
        args = self.args
        if args.train_sampling_strategy != "random" or not hasattr(dataset, "__len__"):
            return super()._get_train_sampler(train_dataset)
        seed = args.seed if args.data_seed is None else args.data_seed
        if args.curriculum > 0:
            batch = self._train_batch_size * args.gradient_accumulation_steps * args.world_size
            self._sampler = CurriculumSampler(memory_lengths(dataset), batch, args.max_steps, args.curriculum, seed)
        else:
            self._sampler = EpochSampler(len(dataset), seed)
        return self._sampler

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # A distributed run that resumes wraps the sampler deeper than set_epoch of its loader reaches.
        if isinstance(self._sampler, EpochSampler):
            self._sampler.set_epoch(kwargs["epoch"])
        super()._run_epoch(*args, **kwargs)

    def _find_checkpoint(self, wanted: str | bool | None) -> store.Checkpoint | None:
        if not wanted:
            return None
        if wanted is True:
            found = store.newest_complete(self.directory)
            if found is None:
                raise TrainingError.of(str(self.directory), "has no complete checkpoint", "Train without resuming")
        else:
            found = store.open_checkpoint(Path(wanted))
        store.require_same_run(found, self.identity())
        return found

    def _take_finished(self, checkpoint: store.Checkpoint) -> TrainOutput:
        """A checkpoint of the last step: there is nothing left to train."""
        self._load_from_checkpoint(str(checkpoint.path))
        self.state = TrainerState.load_from_json(str(checkpoint.path / TRAINER_STATE_NAME))
        losses = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        return TrainOutput(self.state.global_step, losses[-1] if losses else math.nan, {})

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        """Write proj, optimizer, scheduler, random states and progress; rename once all is there."""
        directory, step = self.directory, self.state.global_step
        temporary = store.staging(directory, step)
        self.store_flos()
        if self.args.should_save:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            store.save_proj(self.model, temporary / store.PROJ_FILE)
        self.accelerator.wait_for_everyone()
        self._save_optimizer_and_scheduler(str(temporary))
        self._save_scaler(str(temporary))
        self._save_rng_state(str(temporary))
        open_loss = float(self.accelerator.gather(self._tr_loss.reshape(1)).mean())
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self.state.save_to_json(str(temporary / TRAINER_STATE_NAME))
            store.seal(directory, step, self.identity(), open_loss, self._globalstep_last_logged)
            store.rotate(directory, self.args.save_total_limit)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        store.load_proj(self.model, Path(resume_from_checkpoint) / store.PROJ_FILE)


@contextmanager
def _config_kept(model: nn.Module) -> Iterator[None]:
    """Undo what Trainer writes into the model's configuration (use_cache, the tokenizer's special tokens).

    It is meant for models that Trainer saves whole; here it would end up in the adapter's config.json.
    """
    config = getattr(model, "config", None)
    before = dict(vars(config)) if config is not None else {}
    try:
        yield
    finally:
        if config is not None:
            vars(config).clear()
            vars(config).update(before)


class _Continue(TrainerCallback):
    """Puts back what Trainer resets when it resumes: the losses since the last log entry, the intervals."""

    def __init__(self, trainer: AdapterOnlyTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # Trainer takes the logging and saving intervals of the checkpoint; the arguments of this run count.
        state.compute_steps(args, state.max_steps)
        resumed = self.trainer._resumed
        if resumed is not None:
            self.trainer._tr_loss = torch.tensor(resumed.open_loss, device=args.device)
            self.trainer._globalstep_last_logged = resumed.logged_step


_NOT_FINITE = (
    "Lower the learning rate (now {}) or train.max_grad_norm, and check features and gradients with"
    " `ocrmem smoke`; earlier checkpoints are kept"
)
