"""Small random encoders in the geometry of the tiny preset and of deepseek-ocr-encoder."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from support.deepseek_reference import ReferenceModel, randomise
from transformers import (
    UnlimitedOcrSamVisionConfig,
    UnlimitedOcrVisionConfig,
    UnlimitedOcrVisionEncoderConfig,
)

from ocrmem.encoder.architecture import clip_of, sam_of
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.tensor_names import QKV_PARTS, native_sources, original_name


def small_config(hidden: int = 64, **sam: object) -> UnlimitedOcrVisionConfig:
    """The tiny preset's sizes with one global and two windowed layers; pages of 256 px, tokens of 32 px."""
    settings: dict[str, object] = {
        "hidden_size": 32,
        "output_channels": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 256,
        "patch_size": 8,
        "window_size": 6,
        "global_attn_indexes": [1],
        "mlp_dim": 48,
        "downsample_channels": [24, hidden],
        "initializer_range": 0.02,
    }
    return UnlimitedOcrVisionConfig(
        sam_config=UnlimitedOcrSamVisionConfig(**(settings | sam)),
        encoder_config=UnlimitedOcrVisionEncoderConfig(
            hidden_size=hidden,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=112,
            patch_size=14,
        ),
    )


def small_encoder(features: str = "sum", seed: int = 0, hidden: int = 64) -> DeepEncoder:
    """A random encoder whose every weight matters, position tables and biases too."""
    encoder = DeepEncoder(small_config(hidden), features)
    randomise_state(encoder, seed)
    return encoder


def randomise_state(encoder: DeepEncoder, seed: int) -> None:
    reference = randomise(ReferenceModel(encoder.config), seed)
    state = {f"model.{name}": tensor for name, tensor in reference.state_dict().items()}
    native = {}
    for name, source in native_sources(list(state)).items():
        tensor = state[source.key]
        native[name] = tensor if source.part is None else tensor.chunk(3)[source.part]
    encoder.load_state_dict(native)


def export_original(directory: Path, config: UnlimitedOcrVisionConfig, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write an encoder as DeepSeek-OCR publishes it: its key names, fused qkv, its config.json's dialect.

    Args:
        tensors: native name -> tensor.
    """
    fused: dict[str, dict[int, torch.Tensor]] = defaultdict(dict)
    original: dict[str, torch.Tensor] = {}
    for native, tensor in tensors.items():
        name, part = original_name(native)
        if part is None:
            original[name] = tensor
        else:
            fused[name][part] = tensor
    for name, parts in fused.items():
        original[name] = torch.cat([parts[part] for part in range(len(QKV_PARTS))])
    sam, clip = sam_of(config), clip_of(config)
    values: dict[str, object] = {
        "model_type": "deepseek_vl_v2",
        "vision_config": {
            "model_type": "vision",
            "model_name": "deeplip_b_l",
            "image_size": sam.image_size,
            "width": {
                "sam_vit_b": {
                    "width": sam.hidden_size,
                    "layers": sam.num_hidden_layers,
                    "heads": sam.num_attention_heads,
                    "global_attn_indexes": list(sam.global_attn_indexes),
                    "downsample_channels": list(sam.downsample_channels),
                },
                "clip-l-14-224": {
                    "width": clip.hidden_size,
                    "layers": clip.num_hidden_layers,
                    "heads": clip.num_attention_heads,
                    "image_size": clip.image_size,
                    "patch_size": clip.patch_size,
                },
            },
        },
    }
    directory.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.detach().contiguous() for name, tensor in original.items()}, directory / "model.safetensors"
    )
    (directory / "config.json").write_text(json.dumps(values), encoding="utf-8")


def publish_as_deepseek(directory: Path, reference: ReferenceModel, config: UnlimitedOcrVisionConfig) -> Path:
    """A directory as DeepSeek publishes one: the reference's own state dict, and some of the decoder."""
    export_original(directory, config, DeepEncoder(config).state_dict())  # for its config.json
    state = {f"model.{name}": tensor.contiguous() for name, tensor in reference.state_dict().items()}
    state |= {"model.embed_tokens.weight": torch.zeros(4, 2), "lm_head.weight": torch.zeros(4, 2)}
    save_file(state, directory / "model.safetensors")
    return directory


def random_pages(count: int, size: int, seed: int = 0) -> torch.Tensor:
    """Pages of random black and white [count, 3, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    ink = torch.rand(count, 1, size, size, generator=generator) < 0.2
    return (1.0 - 2.0 * ink).expand(-1, 3, -1, -1).contiguous()
