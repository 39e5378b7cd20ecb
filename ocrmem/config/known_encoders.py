"""Sizes of encoders, known before they are loaded: by name, or by the config.json of a local directory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ocrmem.families import TINY, local_config

ENGLISH = "english"  # the encoder in the box, which reads printable ASCII


@dataclass(frozen=True)
class EncoderSizes:
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
DEEPSEEK_OCR = EncoderSizes({"sum": 1024, "concat": 2048}, (512, 640, 1024, 1280), 64)
TINY_ENCODER = EncoderSizes({"sum": 64, "concat": 128}, (256,), 32)
ENGLISH_ENCODER = EncoderSizes({"sum": 384, "concat": 768}, (512,), 64)


def known_encoder(name: str) -> EncoderSizes | None:
    """Return the sizes of an encoder; None where only loading it can tell."""
    if name == TINY:
        return TINY_ENCODER
    if name == ENGLISH:
        return ENGLISH_ENCODER
    if (values := local_config(name)) is None:
        return DEEPSEEK_OCR if re.search(r"(?:^|/)deepseek-ocr$", name, re.I) else None
    # A config.json of transformers' own (alone or as vision_config), or else DeepSeek-OCR's.
    vision = values if "encoder_config" in values else values.get("vision_config")
    width, patch = _at(vision, "encoder_config", "hidden_size"), _at(vision, "sam_config", "patch_size")
    if width is None:
        width, patch = _at(vision, "width", "clip-l-14-224", "width"), None
    if width == DEEPSEEK_OCR.sizes["sum"] and patch in (None, 16):
        return DEEPSEEK_OCR
    # SAM reduces its patches four times in both directions.
    side = 4 * patch if patch else None
    return None if width is None else EncoderSizes({"sum": width, "concat": 2 * width}, token_size=side)


def _at(values: Any, *path: str) -> int | None:
    for part in path:
        values = values.get(part) if isinstance(values, dict) else None
    return values if isinstance(values, int) and not isinstance(values, bool) else None
