"""Rules over batch sizes, steps and precision."""

from __future__ import annotations

from collections.abc import Iterator

from ocrmem.config.rules.rule import Fault, rule
from ocrmem.config.schema import RunSettings


@rule(
    "train.global_batch_size",
    "train.per_device_batch_size",
    "train.gradient_accumulation_steps",
    "train.processes",
)
def batch_sizes_agree(config: RunSettings) -> Iterator[Fault]:
    train = config.train
    wanted, together = train.global_batch_size, train.per_device_batch_size * train.processes
    made = together * train.gradient_accumulation_steps
    if wanted in (None, made):
        return
    steps, rest = divmod(wanted, together)
    remedy = "Make the four agree, or leave global_batch_size out"
    if steps and not rest:
        remedy = f"Set train.gradient_accumulation_steps={steps}, or leave global_batch_size out"
    yield (
        "train.global_batch_size",
        f"is {wanted}, but per_device_batch_size {train.per_device_batch_size} x gradient_accumulation_steps "
        f"{train.gradient_accumulation_steps} x processes {train.processes} make {made}",
        remedy,
    )


@rule("train.processes")
def processes_are_not_samples(config: RunSettings) -> Iterator[Fault]:
    if config.train.processes > 4096:
        yield "train.processes", f"is {config.train.processes}", "Give the number of GPUs, one process each"


@rule("train.warmup_steps", "train.max_steps")
def warmup_ends(config: RunSettings) -> Iterator[Fault]:
    warmup, steps = config.train.warmup_steps, config.train.max_steps
    if warmup >= steps:
        remedy = f"Lower it to a few per cent of the steps, for example {steps // 20}"
        yield "train.warmup_steps", f"is {warmup}, not below train.max_steps {steps}", remedy


@rule("model.device", "model.precision")
def precision_suits_the_device(config: RunSettings) -> Iterator[Fault]:
    if config.model.device == "cpu" and config.model.precision == "float16":
        yield "model.precision", "is float16, in which training on a CPU overflows", "Use float32 or bfloat16"
