"""The DeepSpeed configuration of a run: generated from its settings, or a file merged with them.

DeepSpeed's bf16 and fp16 modes stay off, whatever ``model.precision`` says. They would cast proj as well: its
forward and its gradients would lose bits that plain data-parallel training keeps, and the adapters would differ.
The frozen parts are loaded in ``model.precision`` and nothing casts them, so an engine that is set to float32
partitions them as they are, holds proj and its optimizer state in float32, and gives the losses of DDP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ocrmem.config.rules.deepspeed import AUTO, STAGES, read_file
from ocrmem.config.run_config import RunConfig
from ocrmem.errors import ConfigError, Problem

Values = dict[str, Any]


def deepspeed_config(config: RunConfig, *, on_cpu: bool) -> Values | None:
    """Return DeepSpeed's configuration, or None for a run without it. Imports nothing and looks at no device.

    Args:
        config: ``train.deepspeed`` and ``train.offload`` are read; batch sizes and clipping are left at
            ``auto`` for Trainer to fill in.
        on_cpu: the processes train on the CPU.

    Raises:
        ConfigError: a file cannot be read or contradicts the settings; every contradiction is named.
    """
    name = config.train.deepspeed
    if name is None:
        return None
    if name in STAGES:
        return _generated(STAGES[name], config.train.offload, on_cpu)
    values, faults = read_file(name, config)
    if faults:
        raise ConfigError([Problem(*found) for found in faults])
    stage = values["zero_optimization"]["stage"]
    return _merged(_generated(stage, config.train.offload, on_cpu), values)


def _generated(stage: int, offload: str, on_cpu: bool) -> Values:
    zero: Values = {
        "stage": stage,
        # Overlap needs a stream beside the one that computes; a CPU has none, and DeepSpeed warns of it.
        "overlap_comm": not on_cpu,
        "contiguous_gradients": True,
        "reduce_bucket_size": AUTO,
    }
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": AUTO,
            "stage3_param_persistence_threshold": AUTO,
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    place = {"device": "cpu", "pin_memory": not on_cpu}
    if offload != "none":
        zero["offload_optimizer"] = place
    if offload == "all":
        zero["offload_param"] = dict(place)
    return {
        "train_micro_batch_size_per_gpu": AUTO,
        "gradient_accumulation_steps": AUTO,
        "train_batch_size": AUTO,
        "gradient_clipping": AUTO,
        "bf16": {"enabled": False},
        "fp16": {"enabled": False},
        "zero_optimization": zero,
        # torch's AdamW even where the state is offloaded: DeepSpeed's own is compiled on first use, and proj is small.
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
    }


def _merged(generated: Mapping[str, Any], given: Mapping[str, Any]) -> Values:
    """Merge ``given`` over ``generated``, section by section."""
    merged = dict(generated)
    for key, value in given.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
