"""AdapterTrainingArguments: Hugging Face's TrainingArguments with what adapter training needs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from ocrmem.arguments import require, require_config
from ocrmem.config import RunConfig
from ocrmem.config.deepspeed import deepspeed_config
from ocrmem.encoder.device import pick_device
from ocrmem.errors import ConfigError, Problem, wrong
from ocrmem.training.deepspeed import prepare_for_cpu, require_deepspeed

# Fields of params.yaml's section train that have the same name and meaning here.
_SAME_NAMES = (
    "max_steps", "learning_rate", "gradient_accumulation_steps", "activation_checkpointing", "lr_scheduler_type",
    "weight_decay", "adam_beta2", "max_grad_norm", "seed", "logging_steps", "save_steps",
    "save_total_limit", "curriculum", "optimizer",
)  # fmt: skip

_IDENTITY = (
    "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "optim", "seed",
    "data_seed", "curriculum", "train_sampling_strategy", "bf16", "fp16",
)  # fmt: skip
# Defaults of what checkpoints do not name where a run has the default: older ones could have no other.
_UNNAMED = {"adam_beta2": 0.999, "optimizer": "adamw"}


@dataclass
class AdapterTrainingArguments(TrainingArguments):
    """All of `transformers.TrainingArguments`, plus a few fields and other defaults.

    Args:
        base_model_name, ocr_model_name, vision_embedding_size, context_threshold: the ancestor's; where they are given,
            the trainer refuses a model that is not built with them. None: any.
        train_data_path, eval_data_path: the ancestor's, for the script that reads its data from them.
        warmup_ratio: share of the steps over which the learning rate rises, unless ``warmup_steps`` says it.
        max_seq_length: the longest sequence, memory included, in tokens. A longer batch stops the training: the data
            was built for another setting.
        save_adapter_only: checkpoints hold proj, optimizer, scheduler, random states and progress, and never
            the frozen weights. The ancestor's name; False is refused.
        curriculum: share of ``max_steps`` (0 to 1) over which samples are let in, those with the shortest
            memory first. 0: plain shuffled epochs.
        optimizer: "adamw": what ``optim`` says. "muon": `ocrmem.training.muon.MuonAdamW`.

    Raises:
        ConfigError: a field above is out of its range, or a curriculum has no ``max_steps`` to be a share of.
    """

    base_model_name: str | None = field(default=None, metadata={"help": "Base model that the model must have."})
    ocr_model_name: str | None = field(default=None, metadata={"help": "Encoder that the model must have."})
    vision_embedding_size: int | None = field(default=None, metadata={"help": "Width that the model must have."})
    context_threshold: int | None = field(default=None, metadata={"help": "Threshold that the model must have."})
    train_data_path: str | None = field(default=None, metadata={"help": "Training data, for your script."})
    eval_data_path: str | None = field(default=None, metadata={"help": "Held-out data, for your script."})
    warmup_ratio: float = field(default=0.0, metadata={"help": "Share of the steps over which the rate rises."})
    max_seq_length: int = field(default=2048, metadata={"help": "Longest sequence, memory included, in tokens."})
    save_adapter_only: bool = field(
        default=True, metadata={"help": "Checkpoints never hold frozen weights; False is refused."}
    )
    curriculum: float = field(
        default=0.0, metadata={"help": "Share of max_steps over which samples are let in, shortest memory first."}
    )
    optimizer: str = field(default="adamw", metadata={"help": "adamw as optim says, or muon for matrices."})
    # Samples are objects and batches have keys of their own: nothing is to be dropped by name.
    remove_unused_columns: bool = False
    # A loss that is not finite stops the training; it must not be smoothed away in the log.
    logging_nan_inf_filter: bool = False
    # Every rank has the same parameters in its graph, with memory in the batch or without.
    ddp_find_unused_parameters: bool | None = False

    def __post_init__(self) -> None:
        remedy = "Give a folder for checkpoints, or a run's settings to AdapterTrainingArguments.from_run_config"
        require(str | os.PathLike | None, self.output_dir, "AdapterTrainingArguments", "a folder's path first", remedy)
        if self.max_seq_length <= 0:
            raise ConfigError.of("max_seq_length", f"is {self.max_seq_length}", "Give a number of tokens above 0")
        if not self.save_adapter_only:
            raise ConfigError.of(
                "save_adapter_only",
                "is False, but frozen weights are never written to a checkpoint",
                "Leave it at True; the base model stays where it was loaded from",
            )
        if not 0 <= self.curriculum <= 1:
            raise ConfigError.of("curriculum", f"is {self.curriculum}", "Give a share between 0 and 1")
        if self.optimizer not in ("adamw", "muon"):
            raise ConfigError.of("optimizer", f"is {self.optimizer!r}", "Give adamw or muon")
        if self.optimizer == "muon" and self.deepspeed:
            message = "is muon, which needs whole matrices, but DeepSpeed deals them out in pieces"
            raise ConfigError.of("optimizer", message, "Give adamw, or train without DeepSpeed")
        if self.curriculum > 0 and self.max_steps <= 0:
            raise ConfigError.of("curriculum", "needs max_steps, of which it is a share", "Set max_steps as well")
        if not 0 <= self.warmup_ratio < 1:
            raise ConfigError.of("warmup_ratio", f"is {self.warmup_ratio}", "Give a share of at least 0 and below 1")
        if self.warmup_ratio and not self.warmup_steps:
            self.warmup_steps = self.warmup_ratio  # below 1, transformers takes it as a share
        if self.data_seed is None:
            self.data_seed = self.seed
        on_cpu = self.use_cpu or not torch.cuda.is_available()
        if self.deepspeed and on_cpu:
            prepare_for_cpu()
        super().__post_init__()
        if on_cpu:
            self.dataloader_pin_memory = False

    @property
    def global_batch_size(self) -> int:
        """Return the samples of an optimizer step, over all processes and accumulation steps."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size

    def identity(self) -> dict[str, Any]:
        """Return the arguments that the sequence of losses depends on, as plain values: a resumed run needs the same.

        How the batch is cut into processes and accumulation steps may change, and so may DeepSpeed's stage.
        """
        values = {name: getattr(self, name) for name in _IDENTITY} | {"global_batch": self.global_batch_size}
        values |= {name: getattr(self, name) for name, default in _UNNAMED.items() if getattr(self, name) != default}
        # Enumerations as their values, so that what is compared is what JSON gives back.
        return {name: getattr(value, "value", value) for name, value in values.items()}

    def remedy_for_batch(self, wanted: int | None) -> str:
        """Return how to have the global batch of a run that resumes, among other things that may differ."""
        remedy = "Put these back to resume"
        if wanted in (None, self.global_batch_size):
            return remedy
        together = self.per_device_train_batch_size * self.world_size
        steps, rest = divmod(wanted, together)
        if rest or not steps:
            return f"{remedy}; per_device_batch_size x gradient_accumulation_steps x processes make the global batch"
        return f"{remedy}; train.gradient_accumulation_steps={steps} makes the global batch {wanted}"

    @classmethod
    def from_run_config(cls, config: RunConfig, **changes: Any) -> AdapterTrainingArguments:
        """Return the arguments that a RunConfig asks for.

        Args:
            config: sections train, model and paths are read.
            changes: fields to set otherwise.

        Raises:
            ConfigError: the configured device, precision or DeepSpeed is not available here.
        """
        require_config("AdapterTrainingArguments.from_run_config", config)
        use_cpu = pick_device(config.model.device).type == "cpu"
        section, precision = config.train, config.model.precision
        if precision == "float16" and use_cpu:
            raise ConfigError.of(
                "model.precision", "is float16, which the CPU cannot train in", "Use float32 or bfloat16"
            )
        require_deepspeed(config)
        values: dict[str, Any] = {
            **{name: getattr(section, name) for name in _SAME_NAMES},
            "output_dir": str(Path(config.paths.checkpoints)),
            "max_seq_length": config.model.max_seq_length,
            "train_sampling_strategy": "group_by_length" if section.group_by_length else "random",
            "dataloader_num_workers": section.loader_workers,
            "per_device_train_batch_size": section.per_device_batch_size,
            "warmup_steps": section.warmup_of(section.max_steps),
            "logging_strategy": "steps",
            "eval_strategy": "no" if section.eval_steps is None else "steps",
            "eval_steps": section.eval_steps,
            "save_strategy": "steps",
            # The frozen parts are loaded in the configured precision and proj stays in float32, so bfloat16
            # needs no autocast. float16 does: its gradient scaler keeps small gradients from vanishing.
            "fp16": precision == "float16",
            "use_cpu": use_cpu,
            "deepspeed": deepspeed_config(config, on_cpu=use_cpu),
            "report_to": "none",
            "include_num_input_tokens_seen": "non_padding",
        }
        if use_cpu and "WORLD_SIZE" in os.environ:
            values["ddp_backend"] = "gloo"
        return cls(**(values | changes))


def require_arguments(model: Any, args: Any, dataset: Any) -> None:
    """Refuse what is no model, no arguments and no samples where a trainer takes them, and a model that is not theirs.

    Raises:
        ConfigError: says what to give, or names the field of the arguments and both values.
    """
    remedy = "Load one with ocrmem.MEMModel.from_run_config(config, with_encoder=False)"
    require(nn.Module, model, "AdapterOnlyTrainer", "a loaded model", remedy)
    remedy = "Give AdapterTrainingArguments(output_dir), or AdapterTrainingArguments.from_run_config(config)"
    require(AdapterTrainingArguments, args, "AdapterOnlyTrainer", "AdapterTrainingArguments", remedy)
    if isinstance(dataset, str | os.PathLike):
        remedy = "Give a list of samples; `ocrmem train` trains on what `ocrmem render` wrote"
        raise wrong("AdapterOnlyTrainer(train_dataset)", "samples", dataset, remedy)
    require_described_model(args, model)


def require_described_model(args: AdapterTrainingArguments, model: nn.Module) -> None:
    """Check that a model is the one that the ancestor's fields of the arguments describe, where they are given.

    Raises:
        ConfigError: names each field and both values.
    """
    config = getattr(model, "config", None)
    problems = [
        Problem(name, f"is {wanted!r}, but the model's is {found!r}", f"Build the model with it, or leave out {name}")
        for name in ("base_model_name", "ocr_model_name", "vision_embedding_size", "context_threshold")
        if (wanted := getattr(args, name)) is not None and (found := getattr(config, name, None)) != wanted
    ]
    if problems:
        raise ConfigError(problems)
