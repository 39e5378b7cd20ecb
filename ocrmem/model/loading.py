"""Loading the frozen parts, telling whose weights they are, and the adapter's two files.

An adapter directory holds ``adapter.safetensors`` (``proj.*``, and ``feature_mean`` and ``feature_std`` where
training stored them) and ``config.json`` (MEMConfig). Nothing is unpickled and nothing frozen is stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils import cached_file

from ocrmem.config import TINY
from ocrmem.errors import MissingInputError, ModelError, first_line
from ocrmem.facts import ADAPTER_FILES
from ocrmem.files import write_bytes, write_text
from ocrmem.model.configuration import MEMConfig
from ocrmem.retry import retrying

WEIGHTS, CONFIG = ADAPTER_FILES
_SAMPLED = 64 * 1024  # bytes of each tensor that go into a fingerprint


def locate(name: str, models: Path | str, part: str) -> str:
    """Where ``name`` loads from: ``models``/``part`` for the tiny preset, else the name itself.

    Raises:
        MissingInputError: the tiny preset has not been built there.
    """
    if name != TINY:
        return name
    directory = Path(models) / part
    if not (directory / CONFIG).is_file():
        raise MissingInputError.of(str(directory), "holds no tiny model", "Run `ocrmem base` first")
    return str(directory)


def load_base(
    location: str,
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """Load the language model from a directory or a hub name.

    On the CPU its weights are pages of the mapped file, which processes share, where the file has this ``dtype``.

    Args:
        location: the directory or name; ``revision`` a commit of the latter.
        dtype: precision of the weights.
        device: a GPU gets the weights tensor by tensor, so that the CPU's memory never holds them all; the CPU
            where it is left out, and where ZeRO-3 is on, which places the weights itself.

    Raises:
        ModelError: it is not there, out of reach, or no causal language model.
    """
    place = {}
    if device is not None and device.type != "cpu" and not is_deepspeed_zero3_enabled():
        place["device_map"] = {"": device}
    try:
        return retrying(
            f"hub, {location}",
            lambda: AutoModelForCausalLM.from_pretrained(location, revision=revision, dtype=dtype, **place),
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError.of(
            location,
            f"no causal language model loads from here ({first_line(error)})",
            "Give a directory that holds one, or a hub name that this machine can reach",
        ) from error


def fingerprint(location: str, revision: str | None = None) -> str | None:
    """Whose weights a directory or a cached hub snapshot holds, whatever its name and its shards.

    The sha256 over every tensor's name, dtype, shape and first 64 KiB in the safetensors files: seconds also
    for a model of many gigabytes, and different for two fine-tunes of one model.

    Returns:
        64 hex digits; None when there are no safetensors files to read (a hub name that is not in the cache).
    """
    directory = _directory(location, revision)
    files = sorted(directory.glob("*.safetensors")) if directory else []
    if not files:
        return None
    tensors = sorted((name, file, spec) for file in files for name, spec in _header(file).items())
    digest = hashlib.sha256()
    for name, file, (dtype, shape, offset, size) in tensors:
        digest.update(json.dumps([name, dtype, shape, size]).encode())
        with file.open("rb") as handle:
            handle.seek(offset)
            digest.update(handle.read(min(size, _SAMPLED)))
    return digest.hexdigest()


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
    path = directory / CONFIG
    if not path.is_file():
        raise MissingInputError.of(str(path), "is not there", "Give an adapter directory, or run `ocrmem train` first")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError.of(str(path), f"is not valid JSON ({error})", "Copy the adapter again") from None
    if not isinstance(values, dict) or values.get("model_type") != MEMConfig.model_type:
        kind = values.get("model_type") if isinstance(values, dict) else type(values).__name__
        raise ModelError.of(
            str(path),
            f"its model_type is {kind!r}, not {MEMConfig.model_type!r}",
            "Give an ocrmem adapter; `ocrmem import-adapter` makes one from an OCR-MEM projection_layer.pt",
        )
    return MEMConfig(**{name: value for name, value in values.items() if name != "model_type"})


def read_weights(directory: Path) -> dict[str, torch.Tensor]:
    """Read an adapter's tensors onto the CPU.

    Raises:
        MissingInputError: the file is not there.
        ModelError: it is not a whole safetensors file.
    """
    path = directory / WEIGHTS
    if not path.is_file():
        raise MissingInputError.of(str(path), "is not there", "Give an adapter directory, or run `ocrmem train` first")
    try:
        return load_safetensors(path.read_bytes())
    except SafetensorError as error:
        raise ModelError.of(
            str(path), f"is not a whole safetensors file ({first_line(error)})", "Copy the adapter again"
        ) from None


def _directory(location: str, revision: str | None) -> Path | None:
    if Path(location).is_dir():
        return Path(location)
    try:
        found = cached_file(location, "config.json", revision=revision, local_files_only=True)
    except (OSError, ValueError):
        return None
    return Path(found).parent if found else None


def _header(file: Path) -> dict[str, tuple[str, list[int], int, int]]:
    """Name -> (dtype, shape, offset in the file, bytes); format: https://github.com/huggingface/safetensors#format."""
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        text = handle.read(length) if length <= file.stat().st_size else b""
    try:
        entries: dict[str, Any] = json.loads(text)
    except ValueError:
        raise ModelError.of(str(file), "is not a whole safetensors file", "Make or download it again") from None
    start = 8 + length
    return {
        name: (
            entry["dtype"],
            entry["shape"],
            start + entry["data_offsets"][0],
            _extent(entry["data_offsets"]),
        )
        for name, entry in entries.items()
        if name != "__metadata__"
    }


def _extent(offsets: list[int]) -> int:
    return offsets[1] - offsets[0]
