"""The verb ``import-adapter``: make an adapter of what OCR-MEM left in a folder (`ocrmem.model.ocr_mem_files`).

The ancestor saved the state dict of ``Sequential(Linear, GELU, Linear)``, so its tensors are called
``0.weight``, ``0.bias``, ``2.weight`` and ``2.bias``, with or without a prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import torch

from ocrmem.arguments import as_path
from ocrmem.config.settings_file import RawSettings, apply_overrides
from ocrmem.errors import ConfigError, MissingInputError, ModelError, Problem
from ocrmem.facts import PROJ
from ocrmem.files import locked
from ocrmem.model.adapter_files import CONFIG, write_adapter
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.ocr_mem_files import REMEDY, find_weights, read_settings, read_tensors
from ocrmem.model.projector import Projector

_NAMES = {"base_model_name": "Qwen/Qwen3-8B", "ocr_model_name": "deepseek-ai/DeepSeek-OCR"}
# utils/render.py and the encoder's preprocessing say so; a page of ours is black and white, without resizing.
OTHER_PAGES = (
    "OCR-MEM's pages are other pictures: Verdana of 9 pt through a PDF of 1280 px, cropped to the text, resized to "
    "1024 and normalised as for CLIP. Train on before you judge it: `ocrmem train --from-adapter DIR`"
)


class _Sizes(TypedDict):
    vision_embedding_size: int
    hidden_size: int
    projector_hidden_size: int | None
    projector_norm: bool


class ImportAdapterResult(_Sizes):
    """What was imported, the projector's sizes as MEMConfig calls them, and what is wrong with it.

    Attributes:
        output: the adapter's folder.
        weights: the file that was read.
        parameters: of the projector.
        problems: why no model can be built with it as it is; empty where one can.
        left_out: fields of the old config.json that MEMConfig does not have.
        warnings: what no check can see.
        summary: what a person reads.
    """

    output: str
    weights: str
    parameters: int
    problems: list[dict[str, Any]]
    left_out: list[str]
    warnings: list[str]
    summary: list[str]


def import_adapter(
    source: str | Path, output: str | Path, overrides: Mapping[str, Any] | Sequence[str] = ()
) -> ImportAdapterResult:
    """Read an ancestor's adapter and write it as one of ours.

    Widths are taken from the weights. What keeps a model from being built with the result, as the ancestor's own
    settings do, is listed and not repaired.

    Args:
        source: folder with the weights, or the output folder of a training that has such folders below it.
        output: adapter folder to write.
        overrides: MEMConfig fields that replace what config.json says, or say what it would: by name, or as texts
            ``name=value``.

    Raises:
        MissingInputError: no weights; or nothing says which models they belong to.
        ModelError: the weights are not plain tensors, or not a projector's; or config.json is broken.
        ConfigError: an override that MEMConfig has no field for, or that cannot be read.
    """
    given = _read_overrides(overrides)
    source, output = (as_path("ocrmem.import_adapter", path) for path in (source, output))
    path = find_weights(source)
    old = read_settings(path.with_name(CONFIG))
    if not path.with_name(CONFIG).is_file() and (missing := _NAMES.keys() - given.keys()):
        raise MissingInputError.of(
            str(path.with_name(CONFIG)),
            f"is not there, so nothing says {' and '.join(sorted(missing))} (the trainer failed before this file)",
            "Add " + " ".join(f"--set {name}={_NAMES[name]}" for name in sorted(missing)) + ", with your names",
        )
    projector, sizes = _build(read_tensors(path), path)
    known = MEMConfig.own_fields().keys()
    settings, left_out = {name: old[name] for name in old if name in known}, sorted(old.keys() - known)
    old_width = settings.get("vision_embedding_size", sizes["vision_embedding_size"])
    config = MEMConfig(**{**settings, **given, **sizes})
    tensors = {f"{PROJ}.{name}": tensor for name, tensor in projector.state_dict().items()}
    with locked(output, "import-adapter"):
        write_adapter(output, config, tensors)
    problems = [_of_the_weights(problem) for problem in config.problems()]
    count = sum(p.numel() for p in projector.parameters())
    summary = [
        f"imported {count:,} parameters of {path}: {sizes['vision_embedding_size']} -> "
        f"{projector.fc1.out_features} -> {sizes['hidden_size']}",
        f"adapter in {output}",
    ]
    if old_width != sizes["vision_embedding_size"]:
        summary.append(f"config.json said vision_embedding_size {old_width}; the weights' width was taken")
    if left_out:
        summary.append(f"left out of config.json: {', '.join(left_out)}")
    summary.append(OTHER_PAGES)
    if problems:
        summary.append(f"no model can be built with it as it is, {len(problems)} problem(s):")
        summary += [f"  {problem}" for problem in problems]
    return {
        "output": str(output),
        "weights": str(path),
        "parameters": count,
        **sizes,
        "problems": [problem.as_dict() for problem in problems],
        "left_out": left_out,
        "warnings": [OTHER_PAGES],
        "summary": summary,
    }


def _read_overrides(overrides: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    settings = apply_overrides(RawSettings(), overrides)
    known = MEMConfig.own_fields().keys()
    remedy = f"Use one of {', '.join(sorted(known))}"
    unknown = [Problem(name, "MEMConfig has no such field", remedy) for name in settings.values if name not in known]
    if problems := [*settings.problems, *unknown]:
        raise ConfigError(problems)
    return settings.values


def _of_the_weights(problem: Problem) -> Problem:
    """Return the problem with a remedy for weights: their width is no setting."""
    if problem.place != "vision_embedding_size":
        return problem
    return replace(problem, remedy="Train a new projector (`ocrmem train`): no setting changes the width of weights")


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
        raise ModelError.of(str(path), f"is not a projector of two linear layers: it holds {shapes}", REMEDY)
    inner, width = tensors[f"{linear[0]}.weight"].shape
    hidden = tensors[f"{linear[1]}.weight"].shape[0]
    projector = Projector(width, hidden, inner_size=inner, norm=norm)
    names = dict(zip(linear, ("fc1", "fc2"), strict=True)) | ({layers[0]: "norm"} if norm else {})
    state = {f"{names[layer]}.{kind}": tensors[f"{layer}.{kind}"] for layer, kind in parts}
    for name, tensor in projector.state_dict().items():
        given = state[name]
        if given.shape != tensor.shape:
            message = f"{name} has shape {tuple(given.shape)}, but {tuple(tensor.shape)} belongs there"
            raise ModelError.of(str(path), message, REMEDY)
        if not torch.isfinite(given).all():
            raise ModelError.of(str(path), f"{name} has values that are not finite", REMEDY)
    projector.load_state_dict(state)
    return projector, {
        "vision_embedding_size": width,
        "hidden_size": hidden,
        "projector_hidden_size": None if inner == hidden else inner,
        "projector_norm": norm,
    }
