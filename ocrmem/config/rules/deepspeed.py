"""Rules over train.deepspeed and train.offload, and over a DeepSpeed file of the user's.

A file may set what ocrmem does not. What both set must agree, since whichever wins makes the other one false: the
batch sizes decide the steps, clipping and precision the losses. Every disagreement is named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ocrmem.config.rules.rule import Fault, rule
from ocrmem.config.schema import RunSettings, TrainSection

STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}
AUTO = "auto"

_FIELD = "train.deepspeed"


@rule(_FIELD, "train.offload", "model.precision")
def deepspeed_is_known(config: RunSettings) -> Iterator[Fault]:
    name, offload = config.train.deepspeed, config.train.offload
    if name is None:
        if offload != "none":
            yield "train.offload", f"is {offload}, but train.deepspeed is not set", "Set it as well, or use none"
        return
    if config.model.precision == "float16":
        message = "is float16, which DeepSpeed trains only by casting proj and its gradients to float16 too"
        yield "model.precision", message, "Use bfloat16 or float32, or leave train.deepspeed out"
    if name not in STAGES:
        yield from read_file(name, config)[1]
    elif offload == "all" and name != "zero3":
        message = f"is all, but {name} does not partition the parameters that it would move"
        yield "train.offload", message, "Use train.deepspeed=zero3, or train.offload=optimizer"


@rule(_FIELD, "train.optimizer")
def muon_has_whole_matrices(config: RunSettings) -> Iterator[Fault]:
    if config.train.optimizer == "muon" and config.train.deepspeed is not None:
        message = "is muon, which needs whole matrices, but DeepSpeed deals them out to the processes in pieces"
        yield "train.optimizer", message, "Use adamw, or leave train.deepspeed out"


@rule(_FIELD, "train.compile_layers")
def compiled_layers_hold_their_weights(config: RunSettings) -> Iterator[Fault]:
    name = config.train.deepspeed
    if name is None or not config.train.compile_layers:
        return
    stage = STAGES.get(name) or _section(read_file(name, config)[0], "zero_optimization").get("stage")
    if stage == 3:
        message = "is true, but under ZeRO-3 a layer's weights are gathered for each call, which torch does not compile"
        yield "train.compile_layers", message, "Use zero1 or zero2, or set it to false"


def read_file(name: str, config: RunSettings) -> tuple[dict[str, Any], list[Fault]]:
    """Read a DeepSpeed configuration file.

    Returns:
        its values, and everything in it that contradicts the settings; ``auto`` agrees with all of them. Comments
        (``_comment...``) and an optimizer that agrees are left out of the values: training makes that very one.
    """
    known = ", ".join(STAGES)
    try:
        values = json.loads(Path(name).read_text(encoding="utf-8"))
    except OSError:
        return {}, [(_FIELD, f"is {name!r}, which cannot be read", f"Use {known} or a DeepSpeed JSON file")]
    except ValueError as error:
        return {}, [(_FIELD, f"is {name}, which is not JSON ({error})", f"Correct the file, or use {known}")]
    if not isinstance(values, dict) or not isinstance(values.get("zero_optimization"), dict):
        return {}, [(_FIELD, f"is {name}, which has no section zero_optimization", f"Add it, or use {known}")]
    found = (*_contradictions(values, config), *_partitioning(values["zero_optimization"], config.train.offload))
    values = {key: value for key, value in values.items() if key != "optimizer" and not key.startswith("_comment")}
    return values, [(_FIELD, message, remedy) for message, remedy in found]


def _contradictions(values: Mapping[str, Any], config: RunSettings) -> Iterator[tuple[str, str]]:
    train = config.train
    batch, accumulated = train.per_device_batch_size, train.gradient_accumulation_steps
    product = "per_device_batch_size x gradient_accumulation_steps x processes"
    for key, setting, value in (
        ("train_micro_batch_size_per_gpu", "train.per_device_batch_size", batch),
        ("gradient_accumulation_steps", "train.gradient_accumulation_steps", accumulated),
        ("train_batch_size", product, batch * accumulated * train.processes),
        ("gradient_clipping", "train.max_grad_norm", train.max_grad_norm),
    ):
        if values.get(key, AUTO) not in (AUTO, value):
            yield f"has {key} {values[key]}, but {setting} is {value}", f'Write "{AUTO}" there, or make them agree'
    for key in ("bf16", "fp16", "amp", "torch_autocast"):
        if _section(values, key).get("enabled", False) not in (False, AUTO):
            message = f"enables {key}, which casts proj; the frozen parts already have model.precision"
            yield f"{message} {config.model.precision}, and proj stays in float32", f"Remove {key} from the file"
    yield from _optimizer(values, train)
    if "scheduler" in values:
        kind, warmup = _section(values, "scheduler").get("type"), "train.warmup_steps or train.warmup_ratio"
        message = f"has scheduler {kind}, but train.lr_scheduler_type {train.lr_scheduler_type} and {warmup} say"
        yield f"{message} how the rate runs", "Remove scheduler from the file"
    if (size := _section(values, "tensor_parallel").get("autotp_size", 1)) != 1:
        message = f"has tensor_parallel.autotp_size {size}, but train.processes are data-parallel ones"
        yield message, "Remove tensor_parallel from the file"


def _optimizer(values: Mapping[str, Any], train: TrainSection) -> Iterator[tuple[str, str]]:
    """Compare a section optimizer with the one that training makes: torch's AdamW, betas 0.9 and train.adam_beta2."""
    if "optimizer" not in values:
        return
    section = _section(values, "optimizer")
    if (kind := section.get("type")) != "AdamW":
        yield f"has optimizer {kind}, but proj is optimized by AdamW", "Remove optimizer from the file"
        return
    wanted: dict[str, tuple[str, Any]] = {
        "lr": ("train.learning_rate", train.learning_rate),
        "betas": ("0.9 and train.adam_beta2", [0.9, train.adam_beta2]),
        "eps": ("AdamW's", 1e-8),
        "weight_decay": ("train.weight_decay", train.weight_decay),
    }
    for key, given in _section(section, "params").items():
        if key not in wanted:
            yield f"has optimizer.params.{key}, which no setting says", f"Remove {key} from the file"
        elif given not in (AUTO, wanted[key][1]):
            message = f"has optimizer.params.{key} {given}, but {wanted[key][0]} is {wanted[key][1]}"
            yield message, "Remove optimizer from the file, or make them agree"


def _partitioning(zero: Mapping[str, Any], offload: str) -> Iterator[tuple[str, str]]:
    stage = zero.get("stage")
    if stage not in STAGES.values():
        yield f"has zero_optimization.stage {stage}", "Use 1, 2 or 3 there"
    wanted = {"optimizer": "cpu" if offload != "none" else "none", "param": "cpu" if offload == "all" else "none"}
    found = {part: _section(zero, f"offload_{part}").get("device", "none") for part in wanted}
    for part, device in found.items():
        # What the file leaves out follows train.offload.
        if f"offload_{part}" in zero and device != wanted[part]:
            message = f"has zero_optimization.offload_{part}.device {device}, but train.offload is {offload}"
            yield f"{message}, which means {wanted[part]}", "Remove it from the file, or make them agree"
    if stage in (1, 2) and "cpu" in (found["param"], wanted["param"]):
        message = f"has zero_optimization.stage {stage}, at which parameters cannot be offloaded"
        yield message, "Use stage 3, or train.offload optimizer or none"


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = values.get(name)
    return section if isinstance(section, Mapping) else {}
