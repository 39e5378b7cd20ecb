"""The tiny encoder: DeepSeek-OCR's architecture at 194 thousand parameters, taught to read lower-case letters."""

from __future__ import annotations

import string

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from transformers import UnlimitedOcrSamVisionConfig, UnlimitedOcrVisionConfig, UnlimitedOcrVisionEncoderConfig

from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.reading import Lesson, RandomPages, ReadingHead, reading_accuracy, teach
from ocrmem.facts import CELL_WIDTH

PAGE_SIZE = 256  # px
TOKEN_SIZE = 32  # px; also the height of a line
_WIDTH = 64
_SIDE = PAGE_SIZE // TOKEN_SIZE
LINES = (1,)  # to a vision token
CHARACTERS = " " + string.ascii_lowercase
_MOST_BLANK = 0.6  # share of blank cells, drawn a page
_BATCH = 8
_RATE = 4e-3


def tiny_encoder_config() -> UnlimitedOcrVisionConfig:
    """Return the geometry: pages of 256 px give 8x8 vision tokens of 128 numbers (``concat``), each of 32x32 px."""
    return UnlimitedOcrVisionConfig(
        sam_config=UnlimitedOcrSamVisionConfig(
            hidden_size=32,
            output_channels=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=PAGE_SIZE,
            patch_size=TOKEN_SIZE // 4,
            window_size=8,
            global_attn_indexes=[],
            mlp_dim=64,
            downsample_channels=[_WIDTH, _WIDTH],
            initializer_range=0.02,
        ),
        encoder_config=UnlimitedOcrVisionEncoderConfig(
            hidden_size=_WIDTH,
            intermediate_size=2 * _WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=14 * _SIDE,
            patch_size=14,
        ),
    )


def random_tiny_encoder(seed: int) -> DeepEncoder:
    """Return the encoder as it is before pre-training: a control that must not work."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DeepEncoder(tiny_encoder_config(), "concat")


def pretrain_encoder(seed: int, steps: int) -> tuple[DeepEncoder, float]:
    """Teach a new encoder to read random characters.

    Args:
        seed: of weights and pages.
        steps: of 8 pages each; 250 give every character of new pages.

    Returns:
        The encoder, frozen and in eval mode, and the share of characters on new pages that its head names.
    """
    pages = character_pages(seed)
    encoder = random_tiny_encoder(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        head = ReadingHead(encoder.feature_size, TOKEN_SIZE // CELL_WIDTH, len(CHARACTERS), LINES)
    teach(encoder, head, pages, [Lesson(LINES, steps)], _optimizers, rate_share, batch_size=_BATCH)
    return encoder, reading_accuracy(encoder, head, pages, *LINES)


def character_pages(seed: int) -> RandomPages:
    """Return the pages that it learns from."""
    return RandomPages(seed, CHARACTERS, PAGE_SIZE, TOKEN_SIZE, _MOST_BLANK)


def rate_share(step: int, steps: int) -> float:
    """Return the share of the full rate: up over 5 % of the steps, level up to 60 %, then down in a line to 2 %."""
    done = step / steps
    if done < 0.05:
        return done / 0.05 + 0.02
    return 1.0 if done < 0.6 else max(0.02, (1 - done) / (1 - 0.6))


def _optimizers(named: list[tuple[str, nn.Parameter]]) -> list[Optimizer]:
    return [AdamW([value for _, value in named], lr=_RATE, weight_decay=0.01)]
