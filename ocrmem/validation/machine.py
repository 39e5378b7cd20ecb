"""Settings against this machine, and against a hub whose content may change under a run."""

from __future__ import annotations

import os
import re

from ocrmem.config import TINY, RunConfig
from ocrmem.config.known_encoders import ENGLISH
from ocrmem.errors import Problem

_COMMIT = re.compile(r"[0-9a-f]{40}")


def device_problems(config: RunConfig, notes: list[str]) -> list[Problem]:
    """Return device and precision that this machine does not have; adds what was not checked to the notes."""
    if config.model.device == "cpu":  # float16 on it is refused with the settings
        return []
    try:
        import torch
    except ImportError:
        notes.append("torch is not installed here, so device and precision were not checked")
        return []
    cuda, devices = torch.cuda.is_available(), torch.cuda.device_count()
    wanted, precision = config.model.device, config.model.precision
    if wanted == "cuda" and not cuda:
        remedy = "Run where there is one, or set model.device to auto or cpu"
        return [Problem("model.device", "is cuda, but this machine has no CUDA device that torch sees", remedy)]
    if not cuda:
        message = "is float16, and this machine has only a CPU, on which training in it overflows"
        return [Problem("model.precision", message, "Use float32 or bfloat16")] if precision == "float16" else []
    if config.train.processes > devices:
        notes.append(f"train.processes is {config.train.processes}, this machine has {devices} GPUs")
    if precision == "bfloat16" and torch.cuda.get_device_capability()[0] < 8:
        message = f"is bfloat16, which {torch.cuda.get_device_name()} can only emulate"
        return [Problem("model.precision", message, "Use float16 or float32 there, or a GPU of 2020 or later")]
    return []


def unpinned(config: RunConfig) -> list[str]:
    """Return a note for each hub name that is not pinned to a commit."""
    model = config.model
    named = ("base", model.base_model_name, model.base_revision), ("ocr", model.ocr_model_name, model.ocr_revision)
    return [
        f"model.{kind}_revision is {revision or 'not set'}: pin {name} to a commit, so that a later run gets "
        "the same weights"
        for kind, name, revision in named
        if name not in (TINY, ENGLISH) and not os.path.isdir(name) and not _COMMIT.fullmatch(revision or "")
    ]
