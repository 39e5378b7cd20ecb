"""Models of a chosen size with random weights: time and memory do not depend on the values."""

from __future__ import annotations

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from ocrmem.encoder.architecture import Tower, clip_of, sam_of, scaled_config
from ocrmem.encoder.deepencoder import DeepEncoder, Features
from ocrmem.model.tiny.encoder import tiny_encoder_config
from ocrmem.model.tiny.language_model import tiny_language_model_config

MEDIUM_WIDTH = 384  # of one vision token; `concat` gives twice that


def medium_encoder(page_size: int, token_size: int, features: Features = "concat") -> DeepEncoder:
    """DeepSeek-OCR's architecture at 15 million parameters: 4 % of the real one, 80 times the tiny preset's."""
    sam = Tower(width=192, layers=6, heads=6, mlp=768)
    clip = Tower(width=MEDIUM_WIDTH, layers=6, heads=6, mlp=4 * MEDIUM_WIDTH)
    config = scaled_config(page_size, token_size, sam, clip, middle=256, window=14, global_layers=(2, 5))
    torch.manual_seed(0)
    return DeepEncoder(config, features).eval()


def small_qwen(vocabulary: int, positions: int, *, hidden: int = 256, layers: int = 4) -> Qwen3ForCausalLM:
    """A Qwen3 with random weights; grouped heads as in the real ones."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        head_dim=64,
        tie_word_embeddings=True,
        max_position_embeddings=positions,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config).eval()


def tiny_encoder(page_size: int, token_size: int) -> DeepEncoder:
    """The tiny preset's encoder (194 thousand parameters) in another geometry."""
    config = tiny_encoder_config()
    sam, clip = sam_of(config), clip_of(config)
    sam.image_size, sam.patch_size = page_size, token_size // 4
    clip.image_size = page_size // token_size * clip.patch_size
    torch.manual_seed(0)
    return DeepEncoder(config, "concat").eval()


def tiny_qwen(vocabulary: int, positions: int) -> Qwen3ForCausalLM:
    """The tiny preset's language model with another vocabulary and more positions."""
    torch.manual_seed(0)
    config = tiny_language_model_config()
    config.vocab_size, config.max_position_embeddings = vocabulary, positions
    return Qwen3ForCausalLM(config).eval()


def parameters(module: torch.nn.Module) -> str:
    """Their number in millions."""
    return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.1f} M"
