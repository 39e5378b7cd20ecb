"""What OCR-MEM leaves in a folder: where proj's tensors and the names of the two models are in it.

Its code has written three kinds of folders. Until 2 December 2025 model and trainer wrote ``projection_layer.pt`` and a
``config.json`` with ``base_model_name``. From 5 December on the model's ``save_pretrained`` calls that field
``base_llm_model_name``; the trainer still asks the config for the old one and ends in an AttributeError between the two
files, so a ``checkpoint-N`` of that time holds ``projection_layer.pt`` alone. Weights that Hugging Face's or
DeepSpeed's own code saved (``zero_to_fp32.py``) are those of the whole model, of which only proj's are read.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ocrmem.errors import MissingInputError, ModelError, first_line
from ocrmem.json_files import WeightIndex, read_json

PROJECTION = "projection_layer.pt"
_FINAL = "final_adapter"  # where run_training.py saves the last weights, beside the checkpoints
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_SAFETENSORS, _PICKLED = "model.safetensors", "pytorch_model.bin"
_OF_PROJ = re.compile(r"^(?:module\.|model\.)*(?:proj|projector|projection_layer)\.")
_PREFIX = re.compile(r"^(?:module\.|model\.|proj\.|projector\.|projection_layer\.)+")
_RENAMED = {"base_llm_model_name": "base_model_name"}
REMEDY = "Give the projection_layer.pt that OCR-MEM wrote, unchanged"
_CONFIG_REMEDY = "Give the config.json that OCR-MEM's save_pretrained wrote beside the weights"
_UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError,
    TypeError, struct.error,
)  # fmt: skip


def weights_file(folder: Path) -> Path | None:
    """Return the file of a folder from which proj's tensors would be read; None where there is none."""
    return next((folder / name for name in _READERS if (folder / name).is_file()), None)


def find_weights(source: Path) -> Path:
    """Return the file that holds proj's tensors: in the folder itself, or in the last that a training left below.

    Raises:
        MissingInputError: there is none.
    """
    numbered = sorted(
        (int(match[1]), path) for path in source.glob("checkpoint-*") if (match := _CHECKPOINT.fullmatch(path.name))
    )
    below = [source / _FINAL, *(path for _, path in reversed(numbered))]
    found = next(filter(None, map(weights_file, (source, *below))), None)
    if found is None:
        remedy = f"Give a folder that holds {PROJECTION}, {_SAFETENSORS} or {_PICKLED}, or checkpoints that do"
        raise MissingInputError.of(str(source / PROJECTION), "is not there", remedy)
    return found


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read proj's tensors from what `find_weights` found; nothing in it is run, and the other tensors are not read.

    Returns:
        float32 tensors, by their names within proj.

    Raises:
        ModelError: the file is damaged, or holds something other than plain tensors.
    """
    return {_PREFIX.sub("", name): tensor.float() for name, tensor in _READERS[path.name](path).items()}


def read_settings(path: Path) -> dict[str, Any]:
    """Read the fields of a config.json by the names that they have here; of one that is not there, none.

    Raises:
        ModelError: it is broken.
    """
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError.of(str(path), f"is not valid JSON ({error})", _CONFIG_REMEDY) from None
    if not isinstance(values, dict):
        raise ModelError.of(str(path), "is not a JSON object", _CONFIG_REMEDY)
    return {new: values.pop(old) for old, new in _RENAMED.items() if old in values} | values


def _projection(path: Path) -> dict[str, torch.Tensor]:
    return _unpickled(path, mmap=False)


def _pickled(path: Path) -> dict[str, torch.Tensor]:
    # Mapped, so that of the language model beside proj nothing is read.
    return {name: tensor for name, tensor in _unpickled(path, mmap=True).items() if _OF_PROJ.match(name)}


def _unpickled(path: Path, *, mmap: bool) -> dict[str, torch.Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except _UNREADABLE as error:
        raise ModelError.of(
            str(path),
            f"is not a file of plain tensors and was not run ({type(error).__name__}: {first_line(error)})",
            REMEDY,
        ) from None
    while isinstance(loaded, dict) and len(loaded) == 1 and isinstance(next(iter(loaded.values())), dict):
        loaded = next(iter(loaded.values()))
    if not isinstance(loaded, dict) or not all(isinstance(t, torch.Tensor) for t in loaded.values()):
        raise ModelError.of(str(path), "holds something other than a state dict of tensors", REMEDY)
    return {str(name): tensor for name, tensor in loaded.items()}


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys() if _OF_PROJ.match(name)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError.of(str(path), f"is not a whole safetensors file ({first_line(error)})", REMEDY) from None


def _sharded(path: Path) -> dict[str, torch.Tensor]:
    """Read the shards that hold a tensor of proj."""
    index = read_json(path, WeightIndex, made_by="train", remedy=REMEDY, error=ModelError)["weight_map"]
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted({shard for name, shard in index.items() if _OF_PROJ.match(name)}):
        if Path(shard).name != shard:
            raise ModelError.of(str(path), f"names {shard!r} as a shard", "Use an index whose shards lie beside it")
        tensors |= (_safetensors if shard.endswith(".safetensors") else _pickled)(path.with_name(shard))
    return tensors


# By file, the surest first: what OCR-MEM's own code writes, then Hugging Face's.
_READERS: dict[str, Callable[[Path], dict[str, torch.Tensor]]] = {
    PROJECTION: _projection,
    _SAFETENSORS: _safetensors,
    f"{_SAFETENSORS}.index.json": _sharded,
    _PICKLED: _pickled,
    f"{_PICKLED}.index.json": _sharded,
}
