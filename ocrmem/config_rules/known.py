"""What is known of models before they are loaded: by name, or by the config.json of a local directory."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocrmem.config import TINY


@dataclass(frozen=True)
class Encoder:
    """An encoder as far as settings must agree with it.

    Attributes:
        sizes: width of a vision token by ``model.features``.
        page_sizes: page sides in px that it was made for; empty when that is not known.
        token_size: side in px of the square of page that one vision token sees; None when not known.
    """

    sizes: dict[str, int]
    page_sizes: tuple[int, ...] = ()
    token_size: int | None = None


# DeepSeek-OCR: SAM-B down to 1024 wide, CLIP-L 1024 wide, patch 16, reduced 4 x 4 (its four square modes).
DEEPSEEK_OCR = Encoder({"sum": 1024, "concat": 2048}, (512, 640, 1024, 1280), 64)
TINY_ENCODER = Encoder({"sum": 64, "concat": 128}, (256,), 32)
TINY_POSITIONS = 512

_DEEPSEEK_NAME = re.compile(r"(?:^|/)deepseek-ocr$", re.I)
QWEN3_NAME = re.compile(r"^qwen/qwen3-(?P<size>0\.6|1\.7|4|8|14|32)b(?P<kind>-base|-[a-z]+-2507)?$", re.I)
_QWEN3_POSITIONS = {None: 40960, "-base": 32768}


def known_encoder(name: str) -> Encoder | None:
    """The encoder of a name, or None where only loading it can tell."""
    if name == TINY:
        return TINY_ENCODER
    values = _local_config(name)
    if values is not None:
        return _described(values)
    return DEEPSEEK_OCR if _DEEPSEEK_NAME.search(name) else None


def known_positions(name: str) -> int | None:
    """The longest sequence that a base model takes, or None where only loading it can tell."""
    if name == TINY:
        return TINY_POSITIONS
    values = _local_config(name)
    if values is not None:
        positions = values.get("max_position_embeddings")
        return positions if isinstance(positions, int) else None
    if match := QWEN3_NAME.match(name):
        kind = match["kind"]
        return _QWEN3_POSITIONS.get(kind.lower() if kind else None, 262144)
    return None


def _local_config(name: str) -> dict[str, Any] | None:
    """config.json of a local directory; None for hub names and directories without a readable one."""
    try:
        values = json.loads((Path(name) / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _described(values: dict[str, Any]) -> Encoder | None:
    """The encoder of a config.json: transformers' own (alone or as ``vision_config``) or DeepSeek-OCR's."""
    vision = values if "encoder_config" in values else values.get("vision_config")
    native, sam = _at(vision, "encoder_config", "hidden_size"), _at(vision, "sam_config", "patch_size")
    if native is not None:
        return _encoder(native, sam)
    return _encoder(_at(vision, "width", "clip-l-14-224", "width"), None)


def _encoder(width: int | None, patch: int | None) -> Encoder | None:
    if width is None:
        return None
    if width == DEEPSEEK_OCR.sizes["sum"] and patch in (None, 16):
        return DEEPSEEK_OCR
    # SAM reduces its patches four times in both directions.
    return Encoder({"sum": width, "concat": 2 * width}, token_size=4 * patch if patch else None)


def _at(values: Any, *path: str) -> int | None:
    for part in path:
        values = values.get(part) if isinstance(values, dict) else None
    return values if isinstance(values, int) and not isinstance(values, bool) else None
