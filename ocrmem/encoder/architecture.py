"""The encoder's geometry: read from the config.json beside the weights, in three dialects.

1. ours, and transformers' own for the vision part alone: ``model_type: unlimited_ocr_vision``;
2. transformers' own for a whole model: the same, nested as ``vision_config``;
3. DeepSeek-OCR's: ``vision_config.width`` with ``sam_vit_b`` and ``clip-l-14-224``. It leaves out what
   DeepSeek's code writes down as constants (MLP widths, window, neck), so those come from the tensors'
   shapes. Its ``mlp_ratio`` 3.7362 belongs to another vision tower and is not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from huggingface_hub.errors import StrictDataclassError
from transformers import UnlimitedOcrSamVisionConfig, UnlimitedOcrVisionConfig, UnlimitedOcrVisionEncoderConfig

from ocrmem.errors import ModelError

NATIVE_TYPE = UnlimitedOcrVisionConfig.model_type
# The SAM config's own default, 1e-10, makes a random encoder whose features do not depend on the page.
INITIALIZER_RANGE = 0.02
Shapes = Mapping[str, tuple[int, ...]]


class Tower(NamedTuple):
    """The size of SAM's or CLIP's part: numbers a patch, layers, heads, and numbers within an MLP."""

    width: int
    layers: int
    heads: int
    mlp: int


def deepseek_ocr_config() -> UnlimitedOcrVisionConfig:
    """Return the published geometry: SAM-B at 1024 px with 16 px patches, and CLIP-L/14."""
    return safe_to_initialize(
        UnlimitedOcrVisionConfig(
            sam_config=UnlimitedOcrSamVisionConfig(), encoder_config=UnlimitedOcrVisionEncoderConfig()
        )
    )


def scaled_config(
    page_size: int,
    token_size: int,
    sam: Tower,
    clip: Tower,
    *,
    middle: int,
    window: int,
    global_layers: Sequence[int] = (),
) -> UnlimitedOcrVisionConfig:
    """Return DeepSeek-OCR's architecture at another size.

    Args:
        page_size: px of a page's side.
        token_size: px of the side of one vision token's square: four patches, as published.
        sam: SAM's part; its neck is as wide.
        clip: CLIP's part; a vision token is as wide (``concat``: twice).
        middle: channels between the two steps that bring SAM's width to CLIP's.
        window: patches of the side of the windows that SAM attends in.
        global_layers: SAM's layers that attend to the whole page instead.
    """
    return UnlimitedOcrVisionConfig(
        sam_config=UnlimitedOcrSamVisionConfig(
            hidden_size=sam.width,
            output_channels=sam.width,
            num_hidden_layers=sam.layers,
            num_attention_heads=sam.heads,
            image_size=page_size,
            patch_size=token_size // 4,
            window_size=window,
            global_attn_indexes=list(global_layers),
            mlp_dim=sam.mlp,
            downsample_channels=[middle, clip.width],
            initializer_range=INITIALIZER_RANGE,
        ),
        encoder_config=UnlimitedOcrVisionEncoderConfig(
            hidden_size=clip.width,
            intermediate_size=clip.mlp,
            num_hidden_layers=clip.layers,
            num_attention_heads=clip.heads,
            image_size=page_size // token_size * 14,
            patch_size=14,
        ),
    )


def safe_to_initialize(config: UnlimitedOcrVisionConfig) -> UnlimitedOcrVisionConfig:
    """Return the same config with an ``initializer_range`` that random weights can live with."""
    if sam_of(config).initializer_range < 1e-4:
        sam_of(config).initializer_range = INITIALIZER_RANGE
    return config


def sam_of(config: UnlimitedOcrVisionConfig) -> UnlimitedOcrSamVisionConfig:
    """Return SAM's part of the geometry; transformers types it loosely."""
    return cast(UnlimitedOcrSamVisionConfig, config.sam_config)


def clip_of(config: UnlimitedOcrVisionConfig) -> UnlimitedOcrVisionEncoderConfig:
    """Return CLIP's part of the geometry."""
    return cast(UnlimitedOcrVisionEncoderConfig, config.encoder_config)


def read_architecture(path: Path, shapes: Shapes) -> UnlimitedOcrVisionConfig:
    """Read the geometry from a config.json, completed by the shapes of the tensors beside it.

    Args:
        path: the config.json.
        shapes: shape of every encoder tensor under its native name.

    Raises:
        ModelError: not JSON, or no config of a DeepEncoder.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError.of(
            str(path), f"is not readable JSON ({error})", "Download the model again, or name another directory"
        ) from None
    if not isinstance(values, dict):
        raise ModelError.of(str(path), "is not a JSON object", "Name a directory that holds DeepSeek-OCR")
    vision = values if values.get("model_type") == NATIVE_TYPE else values.get("vision_config")
    try:
        if isinstance(vision, dict) and vision.get("model_type") == NATIVE_TYPE:
            config = UnlimitedOcrVisionConfig.from_dict(vision)
        else:
            config = _from_deepseek(vision, shapes, path)
        _check(config, path)
    except (KeyError, TypeError, ValueError, ArithmeticError, StrictDataclassError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        raise ModelError.of(
            str(path),
            f"does not describe a DeepEncoder ({reason})",
            "Use the config.json published with deepseek-ai/DeepSeek-OCR, or one that DeepEncoder.save wrote",
        ) from None
    return safe_to_initialize(config)


def _from_deepseek(vision: Any, shapes: Shapes, path: Path) -> UnlimitedOcrVisionConfig:
    if not isinstance(vision, dict):
        raise ModelError.of(str(path), "has no vision_config", "Name a directory or hub model that holds DeepSeek-OCR")
    name = vision.get("model_name", "deeplip_b_l")
    if name != "deeplip_b_l":
        raise ModelError.of(
            str(path),
            f"vision_config.model_name is {name!r}, another encoder than DeepSeek-OCR's deeplip_b_l",
            "Use deepseek-ai/DeepSeek-OCR (DeepSeek-OCR-2 has a different encoder)",
        )
    width = vision.get("width")
    if width is None:
        return deepseek_ocr_config()
    sam, clip = width["sam_vit_b"], width["clip-l-14-224"]
    return UnlimitedOcrVisionConfig(
        sam_config=UnlimitedOcrSamVisionConfig(
            hidden_size=sam["width"],
            num_hidden_layers=sam["layers"],
            num_attention_heads=sam["heads"],
            global_attn_indexes=list(sam["global_attn_indexes"]),
            downsample_channels=list(sam["downsample_channels"]),
            image_size=vision["image_size"],
            **_sam_constants(shapes, set(sam["global_attn_indexes"])),
        ),
        encoder_config=UnlimitedOcrVisionEncoderConfig(
            hidden_size=clip["width"],
            num_hidden_layers=clip["layers"],
            num_attention_heads=clip["heads"],
            image_size=clip["image_size"],
            patch_size=clip["patch_size"],
            **_present(intermediate_size=_size(shapes, "vision_encoder.encoder.layers.0.mlp.fc1.weight", 0)),
        ),
    )


def _sam_constants(shapes: Shapes, global_layers: set[int]) -> dict[str, Any]:
    window = None
    for name, shape in shapes.items():
        match = re.fullmatch(r"sam_encoder\.layers\.(\d+)\.attn\.rel_pos_h", name)
        if match and int(match[1]) not in global_layers:
            window = (shape[0] + 1) // 2
            break
    return _present(
        patch_size=_size(shapes, "sam_encoder.patch_embed.projection.weight", -1),
        mlp_dim=_size(shapes, "sam_encoder.layers.0.mlp.lin1.weight", 0),
        output_channels=_size(shapes, "sam_encoder.neck.conv1.weight", 0),
        window_size=window,
    )


def _size(shapes: Shapes, name: str, dimension: int) -> int | None:
    shape = shapes.get(name)
    return shape[dimension] if shape else None


def _present(**values: int | None) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _check(config: UnlimitedOcrVisionConfig, path: Path) -> None:
    out, hidden = sam_of(config).downsample_channels[-1], clip_of(config).hidden_size
    if out != hidden:
        raise ModelError.of(
            str(path),
            f"SAM gives {out} channels but CLIP takes {hidden}",
            "Make the last of downsample_channels equal CLIP's hidden size",
        )
