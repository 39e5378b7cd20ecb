"""Names of the encoder's tensors: DeepSeek-OCR's own and transformers' native ones.

The renames are those of ``unlimited_ocr`` in transformers' ``conversion_mapping.py``. DeepSeek fuses query,
key and value of CLIP into ``qkv_proj``, in that order along dimension 0; transformers keeps three tensors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ORIGINAL = re.compile(r"^(?:model\.)?(?=(?:sam_model|vision_model)\.)")
_NATIVE = re.compile(r"^(?:model\.)?(?:vision_tower\.)?(?=(?:sam_encoder|vision_encoder)\.)")
# Present in checkpoints and unused: SAM's map takes the place of CLIP's patches, position ids are counted.
_UNUSED = re.compile(
    r"^(?:vision_model|vision_encoder)\.(?:embeddings\.(?:patch_embedding\.|position_ids$)|post_layernorm\.)"
)
_QKV = re.compile(r"^(vision_model\.transformer\.layers\.\d+\.self_attn\.)qkv_proj\.(weight|bias)$")
_TO_NATIVE = [
    (r"^sam_model\.blocks\.(\d+)\.norm([12])\.", r"sam_encoder.layers.\1.layer_norm\2."),
    (r"^sam_model\.blocks\.(\d+)\.", r"sam_encoder.layers.\1."),
    (r"^sam_model\.patch_embed\.proj\.", r"sam_encoder.patch_embed.projection."),
    (r"^sam_model\.neck\.0\.", r"sam_encoder.neck.conv1."),
    (r"^sam_model\.neck\.1\.", r"sam_encoder.neck.layer_norm1."),
    (r"^sam_model\.neck\.2\.", r"sam_encoder.neck.conv2."),
    (r"^sam_model\.neck\.3\.", r"sam_encoder.neck.layer_norm2."),
    (r"^sam_model\.net_2\.", r"sam_encoder.proj.conv1."),
    (r"^sam_model\.net_3\.", r"sam_encoder.proj.conv2."),
    (r"^sam_model\.", r"sam_encoder."),
    (r"^vision_model\.transformer\.", r"vision_encoder.encoder."),
    (r"^vision_model\.", r"vision_encoder."),
]
_TO_ORIGINAL = [
    (r"^sam_encoder\.layers\.(\d+)\.layer_norm([12])\.", r"sam_model.blocks.\1.norm\2."),
    (r"^sam_encoder\.layers\.(\d+)\.", r"sam_model.blocks.\1."),
    (r"^sam_encoder\.patch_embed\.projection\.", r"sam_model.patch_embed.proj."),
    (r"^sam_encoder\.neck\.conv1\.", r"sam_model.neck.0."),
    (r"^sam_encoder\.neck\.layer_norm1\.", r"sam_model.neck.1."),
    (r"^sam_encoder\.neck\.conv2\.", r"sam_model.neck.2."),
    (r"^sam_encoder\.neck\.layer_norm2\.", r"sam_model.neck.3."),
    (r"^sam_encoder\.proj\.conv1\.", r"sam_model.net_2."),
    (r"^sam_encoder\.proj\.conv2\.", r"sam_model.net_3."),
    (r"^sam_encoder\.", r"sam_model."),
    (r"^vision_encoder\.encoder\.", r"vision_model.transformer."),
    (r"^vision_encoder\.", r"vision_model."),
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
                    target = _rename(f"{fused[1]}{projection}.{fused[2]}", _TO_NATIVE)
                    sources[target] = Source(key, part)
            else:
                sources[_rename(name, _TO_NATIVE)] = Source(key)
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
            fused = native.replace(projection, "qkv_proj")
            return "model." + _rename(fused, _TO_ORIGINAL), part
    return "model." + _rename(native, _TO_ORIGINAL), None


def _rename(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name
