"""The devices and dtypes of torch that settings name, and how many processes share the devices."""

from __future__ import annotations

import os

import torch

from ocrmem.errors import ConfigError, wrong

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str | torch.device) -> torch.device:
    """Return the device that ``model.device`` names: ``auto`` is the first GPU where there is one, else the CPU.

    Raises:
        ConfigError: CUDA is asked for and not available, or PyTorch knows no such device.
    """
    name, cuda = str(name), torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    if name.startswith("cuda") and not cuda:
        raise ConfigError.of("model.device", f"is {name}, but there is no CUDA device here", "Set it to auto or cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise wrong("model.device", "auto, cpu or cuda", name, "Set it to auto") from None


def processes_per_node(wanted: str) -> int:
    """Return the processes that ``--nproc`` asks for: a number, or ``auto``.

    ``auto`` is PET_NPROC_PER_NODE where it is a number, else one process a GPU, else one process on all cores.

    Raises:
        ConfigError: it is neither.
    """
    if wanted == "auto":
        wanted = os.environ.get("PET_NPROC_PER_NODE", "")
        if not wanted.isdigit():
            return max(torch.cuda.device_count(), 1)
    if not wanted.isdigit() or int(wanted) < 1:
        raise ConfigError.of("--nproc", f"is {wanted!r}", "Give the number of processes on this machine, or auto")
    return int(wanted)
