"""What AdapterTrainingArguments refuse, and how a RunConfig becomes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import small_model

from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError
from ocrmem.training.arguments import AdapterTrainingArguments, require_described_model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"save_adapter_only": False}, "save_adapter_only: is False.*never written"),
        ({"max_seq_length": 0}, "max_seq_length: is 0"),
        ({"curriculum": 1.5, "max_steps": 5}, "curriculum: is 1.5.*between 0 and 1"),
        ({"curriculum": 0.5}, "curriculum: needs max_steps"),
        ({"warmup_ratio": 1.0}, "warmup_ratio: is 1.0"),
        ({"optimizer": "sgd"}, "optimizer: is 'sgd'.*adamw or muon"),
        ({"optimizer": "muon", "deepspeed": {"zero_optimization": {"stage": 1}}}, "optimizer: .*without DeepSpeed"),
    ],
)
def test_wrong_fields_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AdapterTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **changes)


def test_the_fields_of_the_ancestor_describe_the_model(tmp_path: Path) -> None:
    described = {"base_model_name": "tiny", "vision_embedding_size": 64, "context_threshold": 8, "eval_data_path": "x"}
    arguments = AdapterTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **described)
    model = small_model(with_encoder=False)
    require_described_model(arguments, model)
    arguments.context_threshold, arguments.ocr_model_name = 9, "other"
    with pytest.raises(ConfigError, match=r"(?s)ocr_model_name: is 'other', but the model's is 'tiny'.*is 9, but .* 8"):
        require_described_model(arguments, model)


def test_a_warmup_ratio_is_a_share_of_the_steps(tmp_path: Path) -> None:
    arguments = AdapterTrainingArguments(output_dir=str(tmp_path), use_cpu=True, warmup_ratio=0.1)
    assert arguments.get_warmup_steps(200) == 20
    arguments = AdapterTrainingArguments(output_dir=str(tmp_path), use_cpu=True, warmup_ratio=0.1, warmup_steps=7)
    assert arguments.get_warmup_steps(200) == 7
    values = {"train": {"max_steps": 25, "warmup_ratio": 0.1}, "model": {"device": "cpu"}}
    assert AdapterTrainingArguments.from_run_config(RunConfig.model_validate(values)).warmup_steps == 2


def test_defaults_are_those_of_adapter_training(tmp_path: Path) -> None:
    arguments = AdapterTrainingArguments(output_dir=str(tmp_path), use_cpu=True, seed=5)
    assert arguments.remove_unused_columns is False
    assert arguments.logging_nan_inf_filter is False
    assert arguments.dataloader_pin_memory is False
    assert arguments.report_to == []
    assert arguments.data_seed == 5
    assert AdapterTrainingArguments(output_dir=str(tmp_path), use_cpu=True, data_seed=0, seed=5).data_seed == 0


def test_run_config_reaches_every_argument() -> None:
    section = {
        "max_steps": 77,
        "learning_rate": 0.02,
        "per_device_batch_size": 3,
        "gradient_accumulation_steps": 5,
        "warmup_steps": 6,
        "lr_scheduler_type": "linear",
        "weight_decay": 0.3,
        "max_grad_norm": 0.7,
        "curriculum": 0.4,
        "loader_workers": 2,
        "seed": 9,
        "logging_steps": 11,
        "save_steps": 13,
        "save_total_limit": 4,
    }
    config = RunConfig.model_validate(
        {"train": section, "model": {"device": "cpu", "max_seq_length": 333, "context_threshold": 12}}
    )
    arguments = AdapterTrainingArguments.from_run_config(config)
    renamed = {
        "per_device_batch_size": "per_device_train_batch_size",
        "loader_workers": "dataloader_num_workers",
    }
    for name, value in section.items():
        assert getattr(arguments, renamed.get(name, name)) == value, name
    assert arguments.max_seq_length == 333
    assert arguments.use_cpu
    assert arguments.save_steps == 13


def test_changes_win_over_the_config() -> None:
    config = RunConfig.model_validate({"model": {"device": "cpu"}})
    assert AdapterTrainingArguments.from_run_config(config, max_steps=3).max_steps == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_missing_cuda_is_a_usage_error() -> None:
    config = RunConfig().model_copy(update={"model": RunConfig().model.model_copy(update={"device": "cuda"})})
    with pytest.raises(ConfigError, match=r"model.device: is cuda.*auto or cpu"):
        AdapterTrainingArguments.from_run_config(config)


def test_float16_on_the_cpu_is_a_usage_error() -> None:
    model = RunConfig().model.model_copy(update={"device": "cpu", "precision": "float16"})
    with pytest.raises(ConfigError, match=r"model.precision: is float16"):
        AdapterTrainingArguments.from_run_config(RunConfig().model_copy(update={"model": model}))
