"""Rules over how a run trains, what it accepts, and where it writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ocrmem.config import RunConfig
from ocrmem.config_rules.rule import Fault, Rules

rule = Rules()

OUTPUTS = ("models", "dataset", "checks", "features", "smoke", "adapter", "checkpoints", "tracking")


@rule(
    "train.global_batch_size",
    "train.per_device_batch_size",
    "train.gradient_accumulation_steps",
    "train.processes",
)
def batch_sizes_agree(config: RunConfig) -> Iterator[Fault]:
    train = config.train
    made = train.per_device_batch_size * train.gradient_accumulation_steps * train.processes
    if train.global_batch_size not in (None, made):
        yield (
            "train.global_batch_size",
            f"is {train.global_batch_size}, but per_device_batch_size {train.per_device_batch_size} x "
            f"gradient_accumulation_steps {train.gradient_accumulation_steps} x processes {train.processes} "
            f"make {made}",
            _fitting_accumulation(config),
        )


def _fitting_accumulation(config: RunConfig) -> str:
    train = config.train
    steps, rest = divmod(train.global_batch_size or 0, train.per_device_batch_size * train.processes)
    if steps and not rest:
        return f"Set train.gradient_accumulation_steps={steps}, or leave global_batch_size out"
    return "Make the four agree, or leave global_batch_size out"


@rule("train.processes")
def processes_are_not_samples(config: RunConfig) -> Iterator[Fault]:
    if config.train.processes > 4096:
        yield "train.processes", f"is {config.train.processes}", "Give the number of GPUs, one process each"


@rule("train.warmup_steps", "train.max_steps")
def warmup_ends(config: RunConfig) -> Iterator[Fault]:
    warmup, steps = config.train.warmup_steps, config.train.max_steps
    if warmup >= steps:
        remedy = f"Lower it to a few per cent of the steps, for example {steps // 20}"
        yield "train.warmup_steps", f"is {warmup}, not below train.max_steps {steps}", remedy


@rule("check.min_compression_ratio", "check.max_compression_ratio")
def compression_bounds_are_in_order(config: RunConfig) -> Iterator[Fault]:
    low, high = config.check.min_compression_ratio, config.check.max_compression_ratio
    if low < 0:
        yield "check.min_compression_ratio", f"is {low}", "Give a number of at least 0"
    if low >= high:
        message = f"is {low}, not below check.max_compression_ratio {high}"
        yield "check.min_compression_ratio", message, "Exchange or widen the two bounds"


@rule("check.min_ink_share", "check.max_ink_share")
def ink_bounds_are_in_order(config: RunConfig) -> Iterator[Fault]:
    low, high = config.check.min_ink_share, config.check.max_ink_share
    if low >= high:
        message = f"is {low}, not below check.max_ink_share {high}"
        yield "check.min_ink_share", message, "Exchange or widen the two bounds"


@rule("data.eval_fraction")
def something_is_left_to_train_on(config: RunConfig) -> Iterator[Fault]:
    if config.data.eval_fraction >= 1:
        yield "data.eval_fraction", "is 1, which leaves nothing to train on", "Use for example 0.1"


@rule(
    "register_.gate.min_recall",
    "register_.gate.max_shuffled_recall",
    "register_.gate.max_no_memory_recall",
)
def gate_asks_that_memory_helps(config: RunConfig) -> Iterator[Fault]:
    gate = config.register_.gate
    for name in ("max_shuffled_recall", "max_no_memory_recall"):
        allowed = getattr(gate, name)
        if allowed > gate.min_recall:
            yield (
                f"register_.gate.{name}",
                f"is {allowed}, above min_recall {gate.min_recall}: an adapter whose memory does not matter would pass",
                f"Lower it to {gate.min_recall} or less, or raise min_recall",
            )


@rule("data.path", *(f"paths.{name}" for name in OUTPUTS))
def outputs_do_not_overlap(config: RunConfig) -> Iterator[Fault]:
    """Verbs replace their directories whole, so a shared one would be lost, data first of all."""
    given = {name: getattr(config.paths, name) for name in OUTPUTS}
    if not all(path.strip() and path.isprintable() for path in (config.data.path, *given.values())):
        return
    outputs = {name: absolute(path) for name, path in given.items()}
    here, data = absolute("."), absolute(config.data.path)
    for name, path in outputs.items():
        field = f"paths.{name}"
        if here.is_relative_to(path):
            message = "is the working directory or one above it, and verbs replace it whole"
            yield field, message, "Name a folder of its own"
        elif data.is_relative_to(path):
            yield field, "holds data.path, and verbs replace it whole", "Name a folder of its own"
    names = list(outputs)
    for index, name in enumerate(names):
        for other in names[:index]:
            if outputs[name].is_relative_to(outputs[other]) or outputs[other].is_relative_to(outputs[name]):
                message = f"is the same as paths.{other}, or one lies in the other"
                yield f"paths.{name}", message, "Give each a folder of its own"


def absolute(path: str) -> Path:
    return Path(os.path.realpath(path))  # unlike Path.resolve it does not mind a loop of links
