"""Rules over numbers that make or bound each other: steps, batch sizes, the dataset's bounds, the gate."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

from ocrmem.config.rules.rule import Fault, rule
from ocrmem.config.schema import GateSection, RunSettings

_EXCHANGE = "Exchange or widen the two bounds"


def _below(config: RunSettings, field: str, bound: str, remedy: str) -> Iterator[Fault]:
    value, limit = attrgetter(field, bound)(config)
    if value >= limit:
        yield field, f"is {value}, not below {bound} {limit}", remedy


@rule("check.min_compression_ratio", "check.max_compression_ratio")
def compression_bounds_are_in_order(config: RunSettings) -> Iterator[Fault]:
    return _below(config, "check.min_compression_ratio", "check.max_compression_ratio", _EXCHANGE)


@rule("check.min_ink_share", "check.max_ink_share")
def ink_bounds_are_in_order(config: RunSettings) -> Iterator[Fault]:
    return _below(config, "check.min_ink_share", "check.max_ink_share", _EXCHANGE)


@rule("train.warmup_steps", "train.warmup_ratio", "train.max_steps", "train.num_train_epochs")
def warmup_ends(config: RunSettings) -> Iterator[Fault]:
    train = config.train
    if train.warmup_ratio is not None:
        if train.warmup_steps:
            message = f"is {train.warmup_ratio}, and train.warmup_steps {train.warmup_steps} says the same in steps"
            yield "train.warmup_ratio", message, "Give one of them"
        return
    if train.num_train_epochs is not None:
        return  # checked again when they have been made steps
    remedy = f"Lower it to a few per cent of the steps, for example {config.train.max_steps // 20}"
    yield from _below(config, "train.warmup_steps", "train.max_steps", remedy)


@rule("train.stages", "train.max_steps", "train.num_train_epochs", "train.warmup_steps", "train.warmup_ratio")
def stages_make_up_the_steps(config: RunSettings) -> Iterator[Fault]:
    train, faults = config.train, []
    for number, stage in enumerate(train.stages):
        name = f"train.stages.{number}"
        if (stage.steps is None) == (stage.share is None):
            message = f"has {'neither' if stage.steps is None else 'both'} steps and share"
            faults.append((name, message, "Give each stage one of them"))
        elif train.num_train_epochs is not None and stage.steps is not None:
            message = f"has {stage.steps} steps, but train.num_train_epochs says how many all have together"
            faults.append((f"{name}.steps", message, "Give each stage a share, or give train.max_steps"))
        if stage.mix is not None and stage.objective not in stage.mix:
            message = f"leaves out {stage.objective}, the stage's own objective"
            faults.append((f"{name}.mix", message, f"Add {stage.objective} to it"))
    yield from faults
    if faults or not train.stages:
        return
    if train.num_train_epochs is not None and abs(sum(stage.share or 0 for stage in train.stages) - 1) <= 0.005:
        return  # the rest is checked again when they have been made steps
    taken = sum(stage.steps or train.max_steps * (stage.share or 0) for stage in train.stages)
    shares = any(stage.share for stage in train.stages)
    if abs(taken - train.max_steps) > (0.005 * train.max_steps if shares else 0):
        remedy = "Make the shares add up to 1" if shares else f"Set train.max_steps={taken}"
        yield "train.stages", f"take {taken:.0f} steps, but train.max_steps is {train.max_steps}", remedy
        return
    for number, resolved in enumerate(train.resolved_stages()):
        if resolved.warmup_steps >= resolved.steps:
            message = f"has {resolved.steps} steps, and the learning rate rises over {resolved.warmup_steps}"
            yield f"train.stages.{number}", message, "Give it warmup_steps of its own, a few per cent of its steps"


@rule("train.lora", "train.stages", "train.max_steps")
def lora_has_something_to_learn(config: RunSettings) -> Iterator[Fault]:
    if config.train.lora is not None and config.train.objectives() == ["align"]:
        message = "changes the base model, but align, the only objective of train.stages, runs no base model"
        yield "train.lora", message, "Leave it out, or add a stage with another objective"


@rule("train.distil_kl_weight", "train.distil_nll_weight")
def distil_has_a_loss(config: RunSettings) -> Iterator[Fault]:
    if not config.train.distil_kl_weight + config.train.distil_nll_weight:
        yield (
            "train.distil_kl_weight",
            "is 0, and so is distil_nll_weight: nothing is left to learn",
            "Raise one of them",
        )


@rule("data.eval_fraction")
def something_is_left_to_train_on(config: RunSettings) -> Iterator[Fault]:
    if config.data.eval_fraction >= 1:
        yield "data.eval_fraction", "is 1, which leaves nothing to train on", "Use for example 0.1"


@rule("train.global_batch_size", "train.per_device_batch_size", "train.gradient_accumulation_steps", "train.processes")
def batch_sizes_agree(config: RunSettings) -> Iterator[Fault]:
    train = config.train
    wanted, together = train.global_batch_size, train.per_device_batch_size * train.processes
    made = together * train.gradient_accumulation_steps
    if wanted in (None, made):
        return
    steps, rest = divmod(wanted, together)
    message = (
        f"is {wanted}, but per_device_batch_size {train.per_device_batch_size} x gradient_accumulation_steps "
        f"{train.gradient_accumulation_steps} x processes {train.processes} make {made}"
    )
    change = f"Set train.gradient_accumulation_steps={steps}" if steps and not rest else "Make the four agree"
    yield "train.global_batch_size", message, f"{change}, or leave global_batch_size out"


@rule("train.processes")
def processes_are_not_samples(config: RunSettings) -> Iterator[Fault]:
    if config.train.processes > 4096:
        yield "train.processes", f"is {config.train.processes}", "Give the number of GPUs, one process each"


@rule(*(f"register.gate.{name}" for name in GateSection.model_fields if name.endswith(("recall", "said"))))
def gate_asks_that_memory_helps(config: RunSettings) -> Iterator[Fault]:
    bounds = config.registry.gate.bounds()
    ((least, wanted),) = ((name, bound) for name, bound in bounds.items() if name.startswith("min"))
    for name, allowed in bounds.items():
        if allowed > wanted:
            message = f"is {allowed}, above {least} {wanted}: an adapter whose memory does not matter would pass"
            yield f"register.gate.{name}", message, f"Lower it to {wanted} or less, or raise {least}"
