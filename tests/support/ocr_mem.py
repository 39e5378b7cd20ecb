"""Folders as OCR-MEM's own code leaves them, written by hand after its writers.

Until 2 December 2025 trainer and model wrote the same two files. From 5 December the model calls the base model
``base_llm_model_name``, and the trainer's ``_save``, which asks for the old name, fails before it writes config.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

NAMES = {"base_model_name": "Qwen/Qwen3-8B", "ocr_model_name": "deepseek-ai/DeepSeek-OCR"}
# ds_config.json of the repository; run_training.py writes the second one itself and uses that.
DS_CONFIG: dict[str, Any] = {
    "_comment": "=====",
    "_comment_1": "DeepSpeed ZeRO-2",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "bf16": {"enabled": True},
    "fp16": {"enabled": False},
    "zero_optimization": {
        "stage": 2,
        "offload_optimizer": {"device": "cpu", "pin_memory": True, "buffer_count": 4, "fast_init": False},
        "allgather_partitions": True,
        "allgather_bucket_size": 500000000,
        "reduce_scatter": True,
        "reduce_bucket_size": 500000000,
        "overlap_comm": True,
        "contiguous_gradients": True,
    },
    "gradient_clipping": "auto",
    "steps_per_print": 10,
    "wall_clock_breakdown": False,
}
DS_CONFIG_AUTO: dict[str, Any] = {
    "train_batch_size": 128,
    "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": 8,
    "optimizer": {
        "type": "AdamW",
        "params": {"lr": 2e-4, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01},
    },
    "scheduler": {
        "type": "WarmupLR",
        "params": {"warmup_min_lr": 0, "warmup_max_lr": 2e-4, "warmup_num_steps": "auto"},
    },
    "zero_optimization": {
        "stage": 2,
        "contiguous_gradients": True,
        "overlap_comm": True,
        "reduce_scatter": True,
        "allgather_partitions": True,
        "allgather_bucket_size": 5e8,
        "reduce_bucket_size": 5e8,
    },
    "fp16": {"enabled": False},
    "bf16": {"enabled": True},
    "gradient_clipping": 1.0,
    "steps_per_print": 10,
    "wall_clock_breakdown": False,
}


def old_proj(width: int, hidden: int) -> nn.Sequential:
    """MEMModel.proj: bfloat16, as wide inside as the wider of its two sides."""
    torch.manual_seed(0)
    inner = max(width, hidden)
    layers = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, hidden)).to(torch.bfloat16)
    for name, parameter in layers.named_parameters():
        nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.normal_(parameter, std=0.02)
    return layers


def write_weights(folder: Path, proj: nn.Module) -> None:
    """What model and trainer write first."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({name: tensor.cpu() for name, tensor in proj.state_dict().items()}, folder / "projection_layer.pt")


def write_config(folder: Path, name_of_base: str = "base_model_name", *, width: int, **names: str) -> None:
    """What they write next, if the trainer gets so far."""
    names = NAMES | names
    values = {
        "model_type": "mem_model",
        name_of_base: names["base_model_name"],
        "ocr_model_name": names["ocr_model_name"],
        "vision_embedding_size": width,
        "context_threshold": 2048,
    }
    (folder / "config.json").write_text(json.dumps(values, indent=2), encoding="utf-8")
