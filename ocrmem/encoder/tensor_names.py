"""Names of the encoder's tensors: DeepSeek-OCR's own and transformers' native ones.

The renames are those of ``unlimited_ocr`` in transformers' ``conversion_mapping.py``. DeepSeek fuses query,
key and value of CLIP into ``qkv_proj``, in that order along dimension 0; transformers keeps three tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_ORIGINAL = re.compile(r"^(?:model\.)?(?=(?:sam_model|vision_model)\.)")
_NATIVE = re.compile(r"^(?:model\.)?(?:vision_tower\.)?(?=(?:sam_encoder|vision_encoder)\.)")
# Present in checkpoints and unused: SAM's map takes the place of CLIP's patches, position ids are counted.
_UNUSED = re.compile(
    r"^(?:vision_model|vision_encoder)\.(?:embeddings\.(?:patch_embedding\.|position_ids$)|post_layernorm\.)"
)
_QKV = re.compile(r"^(vision_model\.transformer\.layers\.\d+\.self_attn\.)qkv_proj\.(weight|bias)$")
# Beginnings of DeepSeek-OCR's names and of the native ones; the first that fits counts, # is a number.
_RENAMES = [
    ("sam_model.blocks.#.norm1.", "sam_encoder.layers.#.layer_norm1."),
    ("sam_model.blocks.#.norm2.", "sam_encoder.layers.#.layer_norm2."),
    ("sam_model.blocks.#.", "sam_encoder.layers.#."),
    ("sam_model.patch_embed.proj.", "sam_encoder.patch_embed.projection."),
    ("sam_model.neck.0.", "sam_encoder.neck.conv1."),
    ("sam_model.neck.1.", "sam_encoder.neck.layer_norm1."),
    ("sam_model.neck.2.", "sam_encoder.neck.conv2."),
    ("sam_model.neck.3.", "sam_encoder.neck.layer_norm2."),
    ("sam_model.net_2.", "sam_encoder.proj.conv1."),
    ("sam_model.net_3.", "sam_encoder.proj.conv2."),
    ("sam_model.", "sam_encoder."),
    ("vision_model.transformer.", "vision_encoder.encoder."),
    ("vision_model.", "vision_encoder."),
]
QKV_PARTS = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class Source:
    """The place in a file that a native tensor comes from.

    Attributes:
        key: its name in the file.
        part: 0, 1 or 2 where it is that third, along dimension 0, of a fused tensor; None: the whole.
    """

    key: str
    part: int | None = None


def native_sources(keys: list[str]) -> dict[str, Source]:
    """Return native name -> source, for the encoder's keys of a checkpoint; other keys are left out.

    Args:
        keys: names in the file, original or native ones, with or without the prefixes of a whole model.
    """
    sources: dict[str, Source] = {}
    for key in keys:
        if _ORIGINAL.match(key):
            name = _ORIGINAL.sub("", key, count=1)
            if _UNUSED.match(name):
                continue
            fused = _QKV.match(name)
            if fused:
                for part, projection in enumerate(QKV_PARTS):
                    target = _to_native(f"{fused[1]}{projection}.{fused[2]}")
                    sources[target] = Source(key, part)
            else:
                sources[_to_native(name)] = Source(key)
        elif _NATIVE.match(key):
            name = _NATIVE.sub("", key, count=1)
            if not _UNUSED.match(name):
                sources[name] = Source(key)
    return sources


def is_original(key: str) -> bool:
    """Return whether an encoder tensor's name in a file is one of DeepSeek-OCR's."""
    return _ORIGINAL.match(key) is not None


def original_name(native: str) -> tuple[str, int | None]:
    """Return DeepSeek-OCR's name of a native tensor, and which third of it for CLIP's query, key and value."""
    for part, projection in enumerate(QKV_PARTS):
        if native.startswith("vision_encoder.") and f".self_attn.{projection}." in native:
            return _to_original(native.replace(projection, "qkv_proj")), part
    return _to_original(native), None


def _rename(name: str, renames: Iterable[tuple[str, str]]) -> str:
    for old, new in renames:
        renamed, count = re.subn("^" + re.escape(old).replace(r"\#", r"(\d+)"), new.replace("#", r"\1"), name)
        if count:
            return renamed
    return name


def _to_native(original: str) -> str:
    return _rename(original, _RENAMES)


def _to_original(native: str) -> str:
    return "model." + _rename(native, ((new, old) for old, new in _RENAMES))
