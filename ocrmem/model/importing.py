"""The verb ``import-adapter``: make an adapter of an OCR-MEM ``projection_layer.pt`` and its config.json.

The ancestor saved the state dict of ``Sequential(Linear, GELU, Linear)``, so its tensors are called
``0.weight``, ``0.bias``, ``2.weight`` and ``2.bias``, with or without a prefix.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch

from ocrmem.errors import ConfigError, MissingInputError, ModelError, first_line
from ocrmem.facts import PROJ
from ocrmem.files import locked
from ocrmem.model.adapter_files import CONFIG, write_adapter
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.projector import Projector

SOURCE = "projection_layer.pt"
_PREFIX = re.compile(r"^(?:module\.|model\.|proj\.|projector\.|projection_layer\.)+")
_REMEDY = "Give the projection_layer.pt that OCR-MEM's save_pretrained wrote, unchanged"
_CONFIG_REMEDY = "Give the config.json that OCR-MEM's save_pretrained wrote beside the weights"
_UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError,
    TypeError, struct.error,
)  # fmt: skip


class _Sizes(TypedDict):
    vision_embedding_size: int
    hidden_size: int
    projector_hidden_size: int | None
    projector_norm: bool


class ImportAdapterResult(_Sizes):
    """What was imported, the projector's sizes as MEMConfig calls them, and what is wrong with it.

    Attributes:
        output: the adapter's folder.
        parameters: of the projector.
        problems: why no model can be built with it as it is; empty where one can.
        left_out: fields of the old config.json that MEMConfig does not have.
        summary: what a person reads.
    """

    output: str
    parameters: int
    problems: list[dict[str, Any]]
    left_out: list[str]
    summary: list[str]


def import_adapter(source: Path, output: Path, overrides: Mapping[str, Any] | None = None) -> ImportAdapterResult:
    """Read an ancestor's adapter and write it as one of ours.

    Widths are taken from the weights. What keeps a model from being built with the result, as the ancestor's own
    settings do, is listed and not repaired.

    Args:
        source: folder with projection_layer.pt and config.json.
        output: adapter folder to write.
        overrides: MEMConfig fields that replace what config.json says.

    Raises:
        MissingInputError: a file is not there.
        ModelError: the weights are not plain tensors, or not a projector's; or config.json is broken.
        ConfigError: an override that MEMConfig has no field for.
    """
    settings, left_out = _read_settings(source / CONFIG)
    projector, sizes = _build(_read_tensors(source / SOURCE), source / SOURCE)
    if unknown := sorted(set(overrides or {}) - MEMConfig.own_fields().keys()):
        known = ", ".join(sorted(MEMConfig.own_fields()))
        raise ConfigError.of(", ".join(unknown), "MEMConfig has no such field", f"Use one of {known}")
    old_width = settings.get("vision_embedding_size", sizes["vision_embedding_size"])
    config = MEMConfig(**{**settings, **sizes, **(overrides or {}), **sizes})
    tensors = {f"{PROJ}.{name}": tensor for name, tensor in projector.state_dict().items()}
    with locked(output, "import-adapter"):
        write_adapter(output, config, tensors)
    problems = config.problems()
    count = sum(p.numel() for p in projector.parameters())
    summary = [
        f"imported {count:,} parameters: {sizes['vision_embedding_size']} -> "
        f"{projector.fc1.out_features} -> {sizes['hidden_size']}",
        f"adapter in {output}",
    ]
    if old_width != sizes["vision_embedding_size"]:
        summary.append(f"config.json said vision_embedding_size {old_width}; the weights' width was taken")
    if left_out:
        summary.append(f"left out of config.json: {', '.join(left_out)}")
    if problems:
        summary.append(f"no model can be built with it as it is, {len(problems)} problem(s):")
        summary += [f"  {problem}" for problem in problems]
    return {
        "output": str(output),
        "parameters": count,
        **sizes,
        "problems": [problem.as_dict() for problem in problems],
        "left_out": left_out,
        "summary": summary,
    }


def _read_settings(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the known fields of a config.json, and the names of the others."""
    if not path.is_file():
        raise MissingInputError.of(str(path), "is not there", "Give a folder that also holds config.json")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError.of(str(path), f"is not valid JSON ({error})", _CONFIG_REMEDY) from None
    if not isinstance(values, dict):
        raise ModelError.of(str(path), "is not a JSON object", _CONFIG_REMEDY)
    known = MEMConfig.own_fields()
    return {k: v for k, v in values.items() if k in known}, sorted(values.keys() - known.keys())


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise MissingInputError.of(str(path), "is not there", "Give a folder that holds projection_layer.pt")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise ModelError.of(
            str(path),
            f"is not a file of plain tensors and was not run ({type(error).__name__}: {first_line(error)})",
            _REMEDY,
        ) from None
    while isinstance(loaded, dict) and len(loaded) == 1 and isinstance(next(iter(loaded.values())), dict):
        loaded = next(iter(loaded.values()))
    if not isinstance(loaded, dict) or not all(isinstance(t, torch.Tensor) for t in loaded.values()):
        raise ModelError.of(str(path), "holds something other than a state dict of tensors", _REMEDY)
    return {_PREFIX.sub("", str(name)): tensor.float() for name, tensor in loaded.items()}


def _build(tensors: dict[str, torch.Tensor], path: Path) -> tuple[Projector, _Sizes]:
    """Return a projector of these weights, and the MEMConfig fields that they determine."""
    layers = sorted(
        {name.removesuffix(".weight") for name in tensors if name.endswith(".weight")},
        key=lambda name: (len(name), name),
    )
    norm = len(layers) == 3 and tensors[f"{layers[0]}.weight"].dim() == 1
    linear = layers[1:] if norm else layers
    parts = [(layer, kind) for layer in layers for kind in ("weight", "bias")]
    wanted = {f"{layer}.{kind}" for layer, kind in parts}
    if len(linear) != 2 or set(tensors) != wanted or any(tensors[f"{n}.weight"].dim() != 2 for n in linear):
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()) or "nothing"
        raise ModelError.of(str(path), f"is not a projector of two linear layers: it holds {shapes}", _REMEDY)
    inner, width = tensors[f"{linear[0]}.weight"].shape
    hidden = tensors[f"{linear[1]}.weight"].shape[0]
    projector = Projector(width, hidden, inner_size=inner, norm=norm)
    names = dict(zip(linear, ("fc1", "fc2"), strict=True)) | ({layers[0]: "norm"} if norm else {})
    state = {f"{names[layer]}.{kind}": tensors[f"{layer}.{kind}"] for layer, kind in parts}
    for name, tensor in projector.state_dict().items():
        given = state[name]
        if given.shape != tensor.shape:
            message = f"{name} has shape {tuple(given.shape)}, but {tuple(tensor.shape)} belongs there"
            raise ModelError.of(str(path), message, _REMEDY)
        if not torch.isfinite(given).all():
            raise ModelError.of(str(path), f"{name} has values that are not finite", _REMEDY)
    projector.load_state_dict(state)
    return projector, {
        "vision_embedding_size": width,
        "hidden_size": hidden,
        "projector_hidden_size": None if inner == hidden else inner,
        "projector_norm": norm,
    }
