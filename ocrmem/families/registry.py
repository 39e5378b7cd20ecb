"""The table of families, and whose family a base model is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ocrmem.errors import shown
from ocrmem.families.family import BRACKETS, Family, Marks
from ocrmem.families.gemma import Gemma
from ocrmem.families.llama import Llama
from ocrmem.families.mistral import Mistral
from ocrmem.families.qwen2 import Qwen2
from ocrmem.families.qwen3 import Qwen3
from ocrmem.families.tiny import TINY, Tiny

# A hundred times what the largest models have; the last five are DeepSeek-OCR's names.
_LARGEST = {
    "num_hidden_layers": 10_000,
    "hidden_size": 1_000_000,
    "intermediate_size": 10_000_000,
    "num_attention_heads": 10_000,
    "num_key_value_heads": 10_000,
    "head_dim": 100_000,
    "vocab_size": 100_000_000,
    "max_position_embeddings": 1_000_000_000,
    "layers": 10_000,
    "heads": 10_000,
    "width": 1_000_000,
    "image_size": 1_000_000,
    "patch_size": 1_000_000,
}
FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Qwen3("qwen3"),
        Qwen2("qwen2"),
        Llama("llama"),
        Mistral("mistral"),
        *(Gemma(model_type) for model_type in ("gemma", "gemma2", "gemma3_text")),
        Tiny(TINY),
    )
}


def family_of(name: str, revision: str | None = None) -> Family:
    """Return the family of a base model: "tiny", a directory or a hub name. Nothing is downloaded.

    The ``model_type`` of a directory's config.json decides; for a hub name, the family that knows it or the config.json
    in the hub cache. A family that is not registered has the defaults of `Family`.
    """
    values = None if name == TINY else local_config(name)
    if values is None:
        for family in FAMILIES.values():
            if family.published(name):
                return family
        values = _cached_config(name, revision) or {}
    model_type = str(values.get("model_type", "unknown"))
    return FAMILIES.get(model_type) or Family(model_type, _every_mark())


def _every_mark() -> tuple[Marks, ...]:
    """Return the marks of all families: an unknown base model may well share its vocabulary with one of them."""
    return (
        *dict.fromkeys(marks for family in FAMILIES.values() for marks in family.marks if marks != BRACKETS),
        BRACKETS,
    )


def published_config(name: str) -> dict[str, Any] | None:
    """Return the config.json of a base model that a family knows by its name; None for any other."""
    return next((values for family in FAMILIES.values() if (values := family.published(name))), None)


def known_positions(name: str) -> int | None:
    """Return the longest sequence that a base model takes; None where only loading it can tell."""
    values = None if name == TINY else local_config(name)
    positions = (values or published_config(name) or {}).get("max_position_embeddings")
    return positions if isinstance(positions, int) else None


def size_faults(name: str) -> Iterator[str]:
    """Yield what is wrong with each size in a local model's config.json: no whole number, or beyond all models.

    Building a network of such a size would fail far from its cause, or never end.
    """
    values = None if name == TINY else local_config(name)
    for field, given in _sizes(values or {}):
        largest = _LARGEST[field.rpartition(".")[2]]
        if not (type(given) is int and 1 <= given <= largest):
            yield f'{name}/config.json has "{field}": {shown(given)}, not a whole number from 1 to {largest:,}'


def _sizes(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the sizes in a config by their dotted names; parts of a model have sections of their own."""
    for key, given in values.items():
        if isinstance(given, dict):
            yield from _sizes(given, f"{prefix}{key}.")
        elif key in _LARGEST and given is not None and not isinstance(given, list):
            yield prefix + key, given


def local_config(name: str) -> dict[str, Any] | None:
    """Read the config.json of a local directory; None for hub names and directories without a readable one."""
    return _read(Path(name) / "config.json")


def _cached_config(name: str, revision: str | None) -> dict[str, Any] | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:  # a path of several parts is no hub name
        return None
    return _read(Path(path)) if isinstance(path, str) else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
