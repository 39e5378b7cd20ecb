"""The devices and dtypes of torch that settings name."""

from __future__ import annotations

import torch

from ocrmem.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str) -> torch.device:
    """Return the device that ``model.device`` names: ``auto`` is the first GPU where there is one, else the CPU.

    Raises:
        ConfigError: CUDA is asked for and not available.
    """
    cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    if name.startswith("cuda") and not cuda:
        raise ConfigError.of("model.device", f"is {name}, but there is no CUDA device here", "Set it to auto or cpu")
    return torch.device(name)
