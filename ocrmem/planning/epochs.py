"""Optimizer steps from passes over the training samples: ``train.num_train_epochs``."""

from __future__ import annotations

import math
from pathlib import Path

from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.dataset.manifest import read_manifest


def with_steps(config: RunConfig) -> RunConfig:
    """Return the settings with ``train.max_steps`` in place of ``train.num_train_epochs``, and say how many these are.

    A step takes one global batch, of ``train.per_device_batch_size`` also where a stage has another; the last one of
    the run is filled up with samples of the next pass.

    Raises:
        MissingInputError: there is no dataset to count the samples of.
        ConfigError: a rule does not hold for so many steps.
    """
    train = config.train
    if train.num_train_epochs is None:
        return config
    samples = read_manifest(Path(config.paths.dataset))["counts"]["samples"]["train"]
    batch = train.per_device_batch_size * train.gradient_accumulation_steps * train.processes
    steps = max(math.ceil(train.num_train_epochs * samples / batch), 1)
    sum_of = f"{train.num_train_epochs:g} x {samples:,} samples / {batch:,} a step = {steps:,} steps"
    values = config.as_dict()
    values["train"] |= {"max_steps": steps, "num_train_epochs": None}
    resolved = RunConfig.from_dict(values, place=f"train.num_train_epochs: {sum_of}")
    note(f"train.num_train_epochs: {sum_of}; the rate rises over {resolved.train.warmup_of(steps):,} of them.")
    return resolved
