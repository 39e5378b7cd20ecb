"""Rules over what a run accepts: bounds of the dataset, the share held out, the gate."""

from __future__ import annotations

from collections.abc import Iterator

from ocrmem.config.rules.rule import Fault, rule
from ocrmem.config.schema import RunSettings


@rule("check.min_compression_ratio", "check.max_compression_ratio")
def compression_bounds_are_in_order(config: RunSettings) -> Iterator[Fault]:
    low, high = config.check.min_compression_ratio, config.check.max_compression_ratio
    if low < 0:
        yield "check.min_compression_ratio", f"is {low}", "Give a number of at least 0"
    if low >= high:
        message = f"is {low}, not below check.max_compression_ratio {high}"
        yield "check.min_compression_ratio", message, "Exchange or widen the two bounds"


@rule("check.min_ink_share", "check.max_ink_share")
def ink_bounds_are_in_order(config: RunSettings) -> Iterator[Fault]:
    low, high = config.check.min_ink_share, config.check.max_ink_share
    if low >= high:
        message = f"is {low}, not below check.max_ink_share {high}"
        yield "check.min_ink_share", message, "Exchange or widen the two bounds"


@rule("data.eval_fraction")
def something_is_left_to_train_on(config: RunSettings) -> Iterator[Fault]:
    if config.data.eval_fraction >= 1:
        yield "data.eval_fraction", "is 1, which leaves nothing to train on", "Use for example 0.1"


@rule("register.gate.min_recall", "register.gate.max_shuffled_recall", "register.gate.max_no_memory_recall")
def gate_asks_that_memory_helps(config: RunSettings) -> Iterator[Fault]:
    gate = config.registry.gate
    for name in ("max_shuffled_recall", "max_no_memory_recall"):
        allowed = getattr(gate, name)
        if allowed > gate.min_recall:
            yield (
                f"register.gate.{name}",
                f"is {allowed}, above min_recall {gate.min_recall}: an adapter whose memory does not matter would pass",
                f"Lower it to {gate.min_recall} or less, or raise min_recall",
            )
