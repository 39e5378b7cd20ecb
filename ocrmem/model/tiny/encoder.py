"""The tiny encoder: DeepSeek-OCR's architecture at 194 thousand parameters, taught to read characters.

Random encoders do not read: what they give depends on the page, but no projector gets unseen text at a
varying place out of it. So a throw-away head learns, together with the encoder, to name the characters of
random pages. Pages have no words and no language in them; the language model's vocabulary plays no part.
"""

from __future__ import annotations

import string

import torch
import torch.nn.functional as F
from torch import nn
from transformers import UnlimitedOcrSamVisionConfig, UnlimitedOcrVisionConfig, UnlimitedOcrVisionEncoderConfig

from ocrmem.console import progress_bar
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.facts import CELL_HEIGHT, CELL_WIDTH
from ocrmem.rendering import load_atlas

PAGE_SIZE = 256  # px
TOKEN_SIZE = 32  # px; also the height of a line
_WIDTH = 64
_SIDE = PAGE_SIZE // TOKEN_SIZE
_CELLS = TOKEN_SIZE // CELL_WIDTH  # characters that one vision token sees
_TOP = (TOKEN_SIZE - CELL_HEIGHT) // 2
CHARACTERS = " " + string.ascii_lowercase
_MOST_BLANK = 0.6  # share of blank cells, drawn a page
_BATCH = 8
_TEST_PAGES = 32
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
    pages = _Pages(seed)
    encoder = random_tiny_encoder(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        head = nn.Linear(encoder.feature_size, _CELLS * len(CHARACTERS))
    encoder.train().requires_grad_(True)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=0.01)
    with progress_bar("teaching the encoder characters", steps) as bar:
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = _RATE * rate_share(step, steps)
            wanted, pixels = pages.draw(_BATCH)
            loss = F.cross_entropy(_scores(encoder, head, pixels).flatten(0, 2), wanted.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            bar.advance()
    encoder.eval().requires_grad_(False)
    with torch.no_grad():
        wanted, pixels = pages.draw(_TEST_PAGES)
        right = _scores(encoder, head, pixels).argmax(-1) == wanted
    return encoder, right[wanted > 0].float().mean().item()


def rate_share(step: int, steps: int) -> float:
    """Return the share of the full rate: up over 5 % of the steps, level up to 60 %, then down in a line to 2 %."""
    done = step / steps
    if done < 0.05:
        return done / 0.05 + 0.02
    return 1.0 if done < 0.6 else max(0.02, (1 - done) / (1 - 0.6))


def _scores(encoder: DeepEncoder, head: nn.Linear, pixels: torch.Tensor) -> torch.Tensor:
    """Return scores [B, rows, columns, characters]."""
    return head(encoder(pixels)).reshape(len(pixels), _SIDE, _SIDE * _CELLS, len(CHARACTERS))


class _Pages:
    """Pages of random characters in the renderer's cells and on the renderer's lines."""

    def __init__(self, seed: int) -> None:
        atlas = load_atlas()
        cells = [atlas.cells[atlas.index[ord(character)]] for character in CHARACTERS]
        bits = torch.stack([torch.from_numpy(cell.copy()) for cell in cells])  # uint8 [characters, 16]
        places = torch.arange(7, -1, -1, dtype=torch.uint8)
        self.glyphs = ((bits[..., None] >> places) & 1).float()  # [characters, 16, 8]
        self.source = torch.Generator().manual_seed(seed)

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw character numbers [B, rows, columns] and pixels [B, 3, S, S]."""
        shape = (count, _SIDE, _SIDE * _CELLS)
        wanted = torch.randint(1, len(CHARACTERS), shape, generator=self.source)
        blank = torch.rand(count, 1, 1, generator=self.source) * _MOST_BLANK
        wanted[torch.rand(shape, generator=self.source) < blank] = 0
        ink = torch.zeros(count, _SIDE, TOKEN_SIZE, _SIDE * _CELLS, CELL_WIDTH)
        ink[:, :, _TOP : _TOP + CELL_HEIGHT] = self.glyphs[wanted].permute(0, 1, 3, 2, 4)
        pixels = 1 - 2 * ink.reshape(count, 1, PAGE_SIZE, PAGE_SIZE)
        return wanted, pixels.expand(-1, 3, -1, -1)
