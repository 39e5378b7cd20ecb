"""What settings of OCR-MEM, of Hugging Face's TrainingArguments and of earlier versions are called here.

Only names that are none of params.yaml's are looked up.
"""

from __future__ import annotations

_DATA = "data.path: a directory, in which eval*.jsonl is held out; or hold out a share with data.eval_fraction"
_STEPS = "train.logging_steps, train.save_steps and train.eval_steps: steps alone say when"
_PRECISION = "model.precision; proj is always trained in float32"
_NO_RETRY = "no run is repeated from another seed; train.stages, align before answer, took its place"

OLD_NAMES = {
    "base_model": "model.base_model_name",
    "base_model_path": "model.base_model_name",
    "base_llm_model_name": "model.base_model_name",
    "ocr_model": "model.ocr_model_name",
    "ocr_model_path": "model.ocr_model_name",
    "max_length": "model.max_seq_length",
    "lr": "train.learning_rate",
    "bf16": _PRECISION,
    "fp16": _PRECISION,
    "train_data": _DATA,
    "train_data_path": _DATA,
    "eval_data": _DATA,
    "eval_data_path": _DATA,
    "num_epochs": "train.num_train_epochs",
    "batch_size": "train.per_device_batch_size",
    "per_device_train_batch_size": "train.per_device_batch_size",
    "per_device_eval_batch_size": "evaluate.batch_size",
    "train_batch_size": "train.global_batch_size",
    "gradient_accumulation": "train.gradient_accumulation_steps",
    "gradient_checkpointing": "train.activation_checkpointing",
    "dataloader_num_workers": "train.loader_workers",
    "num_gpus": "train.processes, or `ocrmem train --nproc N`",
    "eval_strategy": _STEPS,
    "save_strategy": _STEPS,
    "logging_strategy": _STEPS,
    "resume_from_checkpoint": "`ocrmem train --resume`",
    "output_dir": "paths.checkpoints, and paths.adapter for the adapter",
    "report_to": "tracking.wandb",
    "wandb_project": "tracking.project",
    "wandb_run_name": "tracking.run_name",
    "disable_wandb": "tracking.wandb: disabled",
}
# What holds without a setting.
WITHOUT_SETTING = {
    "save_adapter_only": "checkpoints and adapters never hold frozen weights",
    "remove_unused_columns": "samples are read whole",
    "tf32": "the frozen parts compute in model.precision",
    "target_loss": _NO_RETRY,
    "max_attempts": _NO_RETRY,  # base has one
}
