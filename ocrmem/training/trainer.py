"""AdapterOnlyTrainer: Hugging Face's Trainer for a model of which only proj is trained, and LoRA where it has it."""

from __future__ import annotations

import inspect
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import PreTrainedModel, PrinterCallback, ProgressCallback, Trainer, TrainerState, set_seed
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from ocrmem import console
from ocrmem.errors import OcrMemError, Problem, TrainingError, first_line
from ocrmem.facts import PROJ
from ocrmem.gradflow import check
from ocrmem.model.packing import longest
from ocrmem.model.trainable import lora_of, trained_parameters, trained_parts
from ocrmem.training import collectives, data_workers, optimizer_state
from ocrmem.training.arguments import AdapterTrainingArguments, require_arguments
from ocrmem.training.callbacks import BarCallback, LoopEvents
from ocrmem.training.checkpoint import PROJ_FILE, Checkpoint, CheckpointStore, load_trained, trained_state
from ocrmem.training.curriculum import GroupedSampler, RunSampler, memory_lengths, sequence_lengths
from ocrmem.training.finite_guard import SAMPLE_IDS, FiniteGuard, name_samples
from ocrmem.training.frozen import (
    ModelHashes,
    config_kept,
    hash_model,
    require_only_proj_moved,
    require_only_proj_trainable,
    require_same_frozen,
)
from ocrmem.training.muon import optimizers_of
from ocrmem.training.optimizer_state import OPTIMIZER_FILE
from ocrmem.training.speed import Speed, SpeedMeter, logged_speed
from ocrmem.training.stages import OBJECTIVE, Draws, StageBatches, StageCollator, Stages
from ocrmem.training.zero3 import skip_broadcast_of_frozen

# Orders that depend on the seed and the step alone, so that a resumed run continues in the very same one.
_OWN_ORDERS = ("random", "group_by_length", "sequential")
# A gradient scaler starts at 2**16 and halves at every overflow: after this many it is at the bottom.
_SCALER_PATIENCE = 17
_MEMORY = ("memory_features", "pixel_values")  # keys of a batch, one of which is there where a sample has memory


class AdapterOnlyTrainer(Trainer):
    """Trains ``model.proj``, and the LoRA of a `MEMModel` that has it, and proves that nothing else moved.

    Differences from `transformers.Trainer`: a model with other trainable parameters is refused; checkpoints
    hold proj and never the frozen weights, are written atomically, resume exactly, and fit any number of processes;
    samples come in a curriculum when the arguments ask for one; ``num_items_in_batch`` reaches a forward that names
    it; the log has ``proj_grad_norm`` and the speed; a loss or gradient that is not finite ends the training, and so
    does a gradient of exactly zero over many steps with memory; ``num_train_epochs`` counts samples, so that every
    step has a whole batch; and progress is one bar on stderr, nothing on stdout.

    Args:
        model: a module whose parameters outside ``proj`` are frozen, such as `ocrmem.MEMModel`.
        args: how to train.
        stages: objective, samples and learning rate of every step, in place of ``curriculum``, the order of samples
            and the schedule of ``args``; its samples are ``train_dataset``. None: what the arguments say.
        meter: measures the speed; None: one that knows no operations, and so no MFU.
        held_out: measures figures for the log, named ``eval_...``, on what is held out; takes the place of
            transformers' evaluation.
        identity: further plain values that the losses depend on (hashes of data, say); a checkpoint with
            others is not resumed.
        tokenizer: the same as ``processing_class``, by its older name.
        kwargs: as `transformers.Trainer` takes them: data_collator, train_dataset, processing_class,
            callbacks, optimizers and so on.

    Attributes:
        checkpoints: the store in ``args.output_dir``.
        resumed_step: step of the checkpoint that `train` resumed from; 0 for none.
        seconds_without_data: how long `train` waited for batches.

    Raises:
        TrainingError: something outside proj would be trained, or proj would not.
    """

    args: AdapterTrainingArguments
    model: nn.Module
    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self,
        model: nn.Module,
        args: AdapterTrainingArguments,
        *,
        stages: Stages | None = None,
        meter: SpeedMeter | None = None,
        held_out: Callable[[], dict[str, float]] | None = None,
        identity: Mapping[str, Any] | None = None,
        tokenizer: Any = None,
        **kwargs: Any,
    ) -> None:
        if tokenizer is not None:
            if kwargs.get("processing_class") is not None:
                raise TrainingError.of(
                    "AdapterOnlyTrainer", "got both tokenizer and processing_class", "Pass processing_class alone"
                )
            kwargs["processing_class"] = tokenizer
        dataset: Any = kwargs.get("train_dataset")
        require_arguments(model, args, dataset)
        require_only_proj_trainable(model)
        if args.device.type == "cpu":
            # accelerate imports DeepSpeed where it is installed, which would print to stdout that it found no GPU.
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # Several GPUs in one process would be DataParallel, which cuts batches along their first axis; the
        # memory of a batch is one flat list of tokens. Use one process a GPU (torchrun).
        if args.n_gpu > 1:
            args._n_gpu = 1
        skip_broadcast_of_frozen(model)
        if args.max_steps <= 0 and hasattr(dataset, "__len__"):
            args.max_steps = math.ceil(args.num_train_epochs * len(dataset) / args.global_batch_size)
        kwargs.setdefault("optimizers", optimizers_of(model, args))
        with config_kept(model):
            super().__init__(model=model, args=args, **kwargs)
        for printing in (PrinterCallback, ProgressCallback):
            self.remove_callback(printing)
        if "num_items_in_batch" in inspect.signature(model.forward).parameters:
            self.model_accepts_loss_kwargs = True
        self.checkpoints = CheckpointStore(
            Path(args.output_dir or "."), args.save_total_limit, is_writer=args.should_save
        )
        self._before: ModelHashes | None = None
        self._after: ModelHashes | None = None
        self._resumed: Checkpoint | None = None
        self.resumed_step = 0
        self.seconds_without_data = 0.0
        self.stages = stages
        self.meter = meter or SpeedMeter()
        self._held_out = held_out
        self._extra_identity = dict(identity or {})
        self._overflows = 0
        self._guard = FiniteGuard()
        self.add_callback(LoopEvents(self))

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
        self._before, self._after = hash_model(self.model), None
        require_same_frozen(self._before)
        self._resumed = self.checkpoints.to_resume(resume_from_checkpoint)
        if self._resumed is not None:
            was = self._resumed.identity.get("global_batch")
            self._resumed.require_same_run(self.identity(), self.args.remedy_for_batch(was))
            # DeepSpeed copies the weights when it is set up, so they go in before.
            load_trained(self.model, self._resumed.path / PROJ_FILE)
        self.resumed_step = self._resumed.step if self._resumed else 0
        if self._resumed and 0 < self.args.max_steps <= self._resumed.step:
            result = self._take_finished(self._resumed)
        else:
            with self._bar(), config_kept(self.model):
                path = str(self._resumed.path) if self._resumed else None
                result = super().train(resume_from_checkpoint=path, **kwargs)
        self._after = hash_model(self.model)
        stopped = self.state.global_step < self.state.max_steps
        require_only_proj_moved(self._before, self._after, stopped=stopped)
        return result

    def hashes(self) -> tuple[ModelHashes, ModelHashes]:
        """Return the model's hashes before and after `train`.

        Raises:
            TrainingError: nothing has been trained.
        """
        if self._before is None or self._after is None:
            raise TrainingError.of("AdapterOnlyTrainer", "has not finished a training", "Call train() first")
        return self._before, self._after

    def identity(self) -> dict[str, Any]:
        """Return what the sequence of losses depends on, as plain values."""
        if self._before is None:
            self._before = hash_model(self.model)
        dataset: Any = self.train_dataset
        values = self.args.identity() | {
            "samples": len(dataset) if hasattr(dataset, "__len__") else None,
            "frozen": self._before.frozen_hash,
        }
        if self.stages is not None:
            values |= self.stages.identity(self._parts)
        return values | self._extra_identity

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Run one forward and backward pass; see `transformers.Trainer.training_step`.

        Raises:
            TrainingError: the batch is longer than ``max_seq_length``, or no gradient reaches proj; the latter
                carries the gradient doctor's findings.
        """
        samples: Any = inputs.pop(SAMPLE_IDS, [])
        if (length := longest(inputs)) > self.args.max_seq_length:
            raise TrainingError.of(
                f"step {self.state.global_step + 1}",
                f"a batch is {length} tokens long, but max_seq_length is {self.args.max_seq_length}",
                "Build the data for this length (`ocrmem render`), or raise max_seq_length",
            )
        self.meter.saw(inputs)
        self._guard.has_memory |= "input_ids" not in inputs or not inputs.keys().isdisjoint(_MEMORY)
        try:
            loss = super().training_step(model, inputs, num_items_in_batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # PyTorch's own text names eight causes. The doctor finds the one, but it runs the step again, which
            # several processes could only do together.
            if self.args.world_size > 1 or self.is_deepspeed_enabled:
                raise
            name: Any = inputs.get(OBJECTIVE)
            batch = self._prepare_inputs({key: value for key, value in inputs.items() if key != OBJECTIVE})
            if self.stages is not None and name is not None:
                report = self.stages.objectives[name].check(self.model, batch)
            else:
                report = check(self.model, batch, trained_parts(self.model))
            faults = report.faults()
            if not faults:
                raise
            raised = (f"step {self.state.global_step + 1}", first_line(error), "See what follows for the cause")
            raise TrainingError([Problem(*fault) for fault in (raised, *faults)]) from error
        self._guard.saw(loss, samples)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss of the batch's objective, or without stages that of forward."""
        name = inputs.pop(OBJECTIVE, None)
        if self.stages is None or name is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = self.stages.objectives[name].loss(model, inputs, num_items_in_batch)
        # The items are those of all processes, whose gradients are averaged.
        return loss * self.accelerator.num_processes

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor | int | None:
        """Count what the loss of a step is a mean over, in all its batches and processes."""
        name = batch_samples[0].get(OBJECTIVE) if batch_samples else None
        if self.stages is None or name is None:
            return super()._get_num_items_in_batch(batch_samples, device)
        objective = self.stages.objectives[name]
        items = torch.tensor(sum(objective.items(batch) for batch in batch_samples), device=device)
        return self.accelerator.gather(items).sum()

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        if "input_ids" in inputs:  # Trainer warns where there are none, and looks for padding without a mask
            super()._track_num_input_tokens({"attention_mask": torch.ones_like(inputs["input_ids"]), **inputs})

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Make the schedule of the learning rate, of all stages; see `transformers.Trainer.create_scheduler`."""
        if self.stages is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        rate = self.stages.rate(self.args.lr_scheduler_type, self.args.learning_rate)
        self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, rate)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def settle_step(self) -> None:
        """Check before the optimizer steps that losses and gradient of this step are finite, on all processes.

        Raises:
            TrainingError: they are not; names step, process and samples.
        """
        remedy = (
            f"Lower the learning rate (now {self.args.learning_rate}) or train.max_grad_norm, and check features and"
            " gradients with `ocrmem smoke`; earlier checkpoints are kept"
        )
        self._guard.settle(self.state.global_step + 1, remedy, self.args.device)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Record logs; the norm of all trained gradients is proj's (with LoRA, of both), and is named so."""
        if "grad_norm" in logs:
            logs["proj_grad_norm"] = logs.pop("grad_norm")
        if self.stages is not None and len(self.stages.stages) > 1 and "loss" in logs:
            logs["stage"] = self.stages.number(self.state.global_step - 1) + 1
        if "loss" in logs:
            logs |= logged_speed(collectives.gather(self.meter.read()))
        super().log(logs, start_time)

    def speeds(self) -> list[Speed]:
        """Return the speed of every process over the whole training, by rank; all processes call this together."""
        return collectives.gather(self.meter.overall())

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Log what ``held_out`` measures; without it, as `transformers.Trainer.evaluate`."""
        with self.meter.paused():
            if self._held_out is None:
                return super().evaluate(*args, **kwargs)
            metrics = self._held_out()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter: ``model.save_pretrained`` of a MEMModel, which holds no frozen weights."""
        target = Path(output_dir) if output_dir else self.checkpoints.directory
        tensors = self.adapter_tensors()
        if self.args.should_save:
            target.mkdir(parents=True, exist_ok=True)
            if isinstance(self.model, PreTrainedModel):
                self.model.save_pretrained(str(target), state_dict=tensors)
            else:
                save_file(tensors, target / PROJ_FILE)
        self.accelerator.wait_for_everyone()

    def adapter_tensors(self) -> dict[str, torch.Tensor]:
        """Return what an adapter holds: what is trained and the model's own buffers, whole; all processes call this."""
        lora, own = lora_of(self.model), dict(self.model.named_buffers(recurse=False))
        return {name if name in lora else f"{PROJ}.{name}": t for name, t in trained_state(self.model).items()} | own

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Return the norm of proj's gradient before clipping; one that is not finite ends the training."""
        norm = super()._get_grad_norm(model, grad_norm)
        if math.isfinite(norm) and norm >= 0:  # DeepSpeed gives -1 in place of infinity and NaN
            self._overflows = 0
            self._guard.saw_gradient(float(norm))
            return norm
        self._overflows += 1
        # With float16 a gradient scaler skips such a step and lowers its scale: that is its normal work.
        if self.accelerator.scaler is None or self._overflows >= _SCALER_PATIENCE:
            self._guard.norm = float(norm)
        return norm

    @contextmanager
    def _bar(self) -> Iterator[None]:
        """Show one progress bar a run: in the first process."""
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

    def get_train_dataloader(self) -> DataLoader:
        """Return batches of the training samples, with their names, in the order of `RunSampler`."""
        args, dataset, collator = self.args, cast(Any, self.train_dataset), cast(Any, self.data_collator)
        naming: Any = partial(name_samples, collator)
        drawing: dict[str, Any] = {}
        if self.stages is not None:
            drawing = {"batch_sampler": StageBatches(self.stages, args.max_steps, self._parts)}
            dataset, naming = Draws(dataset), partial(name_samples, StageCollator(self.stages.objectives))
        elif hasattr(dataset, "__len__") and args.train_sampling_strategy in _OWN_ORDERS:
            drawing = {"sampler": self._sampler(dataset), "batch_size": self._train_batch_size}
            drawing["drop_last"] = args.dataloader_drop_last
        if not drawing:
            self.data_collator = naming
            try:
                loader = super().get_train_dataloader()
            finally:
                self.data_collator = collator
        else:
            if args.dataloader_num_workers:
                # Otherwise each of them warns on stderr that it must not tokenise in parallel.
                os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
                dataset, naming = data_workers.CarriedDataset(dataset), partial(data_workers.carry_errors, naming)
            loader = self.accelerator.prepare(
                DataLoader(
                    dataset,
                    **drawing,
                    collate_fn=naming,
                    num_workers=args.dataloader_num_workers,
                    pin_memory=args.dataloader_pin_memory,
                    persistent_workers=args.dataloader_persistent_workers,
                    multiprocessing_context=args.dataloader_multiprocessing_context,
                    prefetch_factor=args.dataloader_prefetch_factor,
                    in_order=args.dataloader_in_order,
                )
            )
        if loader.num_workers:
            loader.worker_init_fn = data_workers.begin_worker
        return loader

    @property
    def _parts(self) -> int:
        """Return the batches of an optimizer step, of all processes."""
        return self.args.gradient_accumulation_steps * self.args.world_size

    def _sampler(self, dataset: Any) -> Sampler[int]:
        args = self.args
        if args.train_sampling_strategy == "sequential":
            return SequentialSampler(dataset)
        seed = args.seed if args.data_seed is None else args.data_seed
        lengths = memory_lengths(dataset) if args.curriculum > 0 else [0] * len(dataset)
        run = (lengths, args.global_batch_size, args.max_steps, args.curriculum, seed)
        grouped = args.train_sampling_strategy == "group_by_length"
        return GroupedSampler(sequence_lengths(dataset), *run) if grouped else RunSampler(*run)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], torch.Tensor | int | None]:
        """Return the batches of the next step; see `transformers.Trainer.get_batch_samples`.

        Raises:
            OcrMemError: a worker process could not make one of them.
        """
        start = time.monotonic()
        batches, items = super().get_batch_samples(*args, **kwargs)
        self.seconds_without_data += time.monotonic() - start
        for batch in batches:
            if isinstance(error := batch.get(data_workers.FAILED), OcrMemError):
                raise error
        return batches, items

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        """Have the store write what is trained, optimizer, scheduler, random states and progress."""
        self.store_flos()
        trained = trained_state(self.model)
        optimizer = optimizer_state.collect(self.optimizer, trained_parameters(self.model))
        open_loss = float(self.accelerator.gather(self._tr_loss.reshape(1)).mean())

        def shared(folder: Path) -> None:
            save_file(trained, folder / PROJ_FILE)
            save_file(optimizer, folder / OPTIMIZER_FILE)
            torch.save(self.lr_scheduler.state_dict(), folder / SCHEDULER_NAME)
            self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
            self._save_scaler(str(folder))

        self.checkpoints.save(
            self.state.global_step,
            self.identity(),
            open_loss,
            self._globalstep_last_logged,
            shared=shared,
            own=lambda folder: self._save_rng_state(str(folder)),
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Do nothing: `train` has loaded proj, and Trainer would look for all weights."""

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None
    ) -> tuple[Any, Any]:
        """Keep Trainer from looking for DeepSpeed's own checkpoint files, which ours are not."""
        wanted = None if self.is_deepspeed_enabled else resume_from_checkpoint
        return super()._prepare_for_training(max_steps, train_dataloader, wanted)

    def restore_progress(self, state: TrainerState) -> None:
        """Put back what Trainer does not know of, once it has made optimizer and scheduler."""
        # Trainer takes the logging and saving intervals of the checkpoint; the arguments of this run count.
        state.compute_steps(self.args, state.max_steps)
        if self._resumed is None:
            return
        path = self._resumed.path
        optimizer_state.restore(self.optimizer, trained_parameters(self.model), path / OPTIMIZER_FILE)
        self.lr_scheduler.load_state_dict(torch.load(path / SCHEDULER_NAME, weights_only=True))
        # The scheduler works out a rate only when it steps: the next optimizer step needs the present one.
        for group, rate in zip(self.optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
        self._tr_loss = torch.tensor(self._resumed.open_loss, device=self.args.device)
        self._globalstep_last_logged = self._resumed.logged_step

    def seed_missing_random_states(self, step: int) -> None:
        """Seed by step a process for which a checkpoint of fewer processes holds no random states."""
        args, resumed = self.args, self._resumed
        if resumed is None or resumed.step != step:
            return
        name = f"rng_state_{args.process_index}.pth" if args.world_size > 1 else "rng_state.pth"
        if not (resumed.path / name).is_file():
            set_seed((args.seed + 7919 * step + 104729 * args.process_index) % 2**32)

    def _take_finished(self, checkpoint: Checkpoint) -> TrainOutput:
        """Return the outcome of a checkpoint of the last step, after which there is nothing left to train."""
        self.state = TrainerState.load_from_json(str(checkpoint.path / TRAINER_STATE_NAME))
        losses = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        return TrainOutput(self.state.global_step, losses[-1] if losses else math.nan, {})
