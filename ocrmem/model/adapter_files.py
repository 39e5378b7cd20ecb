"""An adapter's two files: proj's tensors and the configuration.

``adapter.safetensors`` holds ``proj.*``, and ``feature_mean`` and ``feature_std`` where training stored them;
``config.json`` is a MEMConfig. Nothing is unpickled and nothing frozen is stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from ocrmem.errors import MissingInputError, ModelError, first_line
from ocrmem.facts import ADAPTER_FILES
from ocrmem.files import write_bytes, write_text
from ocrmem.model.configuration import MEMConfig

WEIGHTS, CONFIG = ADAPTER_FILES


def write_adapter(directory: Path, config: MEMConfig, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write an adapter's two files, each atomically; other files of the directory stay."""
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    write_bytes(directory / WEIGHTS, save_safetensors(plain, metadata={"format": "pt"}))
    write_text(directory / CONFIG, config.adapter_json())


def read_config(directory: Path) -> MEMConfig:
    """Read an adapter's config.json, without judging its values.

    Raises:
        MissingInputError: there is none.
        ModelError: it is not JSON, or not an ocrmem adapter's.
    """
    path = _existing(directory / CONFIG)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError.of(str(path), f"is not valid JSON ({error})", "Copy the adapter again") from None
    if not isinstance(values, dict) or values.get("model_type") != MEMConfig.model_type:
        kind = values.get("model_type") if isinstance(values, dict) else type(values).__name__
        raise ModelError.of(
            str(path),
            f"its model_type is {kind!r}, not {MEMConfig.model_type!r}",
            "Give an ocrmem adapter; `ocrmem import-adapter` makes one of what OCR-MEM left",
        )
    return MEMConfig(**{name: value for name, value in values.items() if name != "model_type"})


def read_weights(directory: Path) -> dict[str, torch.Tensor]:
    """Read an adapter's tensors onto the CPU.

    Raises:
        MissingInputError: the file is not there.
        ModelError: it is not a whole safetensors file.
    """
    path = _existing(directory / WEIGHTS)
    try:
        return load_safetensors(path.read_bytes())
    except SafetensorError as error:
        raise ModelError.of(
            str(path), f"is not a whole safetensors file ({first_line(error)})", "Copy the adapter again"
        ) from None


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise MissingInputError.of(str(path), "is not there", "Give an adapter directory, or run `ocrmem train` first")
    return path
