"""The tiny encoder: DeepSeek-OCR's architecture at 194 thousand parameters, taught to read lower-case letters."""

from __future__ import annotations

import string

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from transformers import UnlimitedOcrVisionConfig

from ocrmem.encoder.architecture import Tower, scaled_config
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.reading import Lesson, RandomPages, RateCourse, ReadingHead, reading_accuracy, teach
from ocrmem.facts import CELL_WIDTH

PAGE_SIZE = 256  # px
TOKEN_SIZE = 32  # px; also the height of a line
LINES = (1,)  # to a vision token
CHARACTERS = " " + string.ascii_lowercase
_MOST_BLANK = 0.6  # share of blank cells, drawn a page
_BATCH = 8
_RATE = 4e-3
_COURSE = RateCourse(risen=0.05, level_until=0.6, least=0.02)


def tiny_encoder_config() -> UnlimitedOcrVisionConfig:
    """Return the geometry: pages of 256 px give 8x8 vision tokens of 128 numbers (``concat``), each of 32x32 px."""
    sam, clip = Tower(width=32, layers=2, heads=2, mlp=64), Tower(width=64, layers=2, heads=4, mlp=128)
    return scaled_config(PAGE_SIZE, TOKEN_SIZE, sam, clip, middle=clip.width, window=8)


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
    teach(encoder, head, pages, [Lesson(LINES, steps)], _optimizers, _COURSE, batch_size=_BATCH)
    return encoder, reading_accuracy(encoder, head, pages, *LINES)


def character_pages(seed: int) -> RandomPages:
    """Return the pages that it learns from."""
    return RandomPages(seed, CHARACTERS, PAGE_SIZE, TOKEN_SIZE, _MOST_BLANK)


def _optimizers(named: list[tuple[str, nn.Parameter]]) -> list[Optimizer]:
    return [AdamW([value for _, value in named], lr=_RATE, weight_decay=0.01)]
