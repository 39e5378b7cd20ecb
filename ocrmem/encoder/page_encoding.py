"""Pages through the encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.wrapped_encoder import WrappedEncoder
from ocrmem.rendering.page import Page

_CPU_PIXELS, _GPU_PIXELS = 1 << 20, 1 << 24  # a page of 1024 px, or 16; no gain from more on a CPU


Encoder = DeepEncoder | WrappedEncoder


def batch_size(page_size: int, device: torch.device) -> int:
    """Return how many pages go through the encoder together."""
    budget = _GPU_PIXELS if device.type == "cuda" else _CPU_PIXELS
    return max(1, budget // (page_size * page_size))


def encode_kept_tokens(encoder: Encoder, pages: Sequence[Page], *, drop_blank_tokens: bool) -> list[torch.Tensor]:
    """Encode pages as `encode_pages`, and keep the vision tokens that enter a sequence.

    Args:
        drop_blank_tokens: only tokens with ink; otherwise all.

    Returns:
        float32 [m, d] of each page, on the CPU.
    """
    features_PND = encode_pages(encoder, pages).float().cpu()
    if not drop_blank_tokens:
        return list(features_PND)
    masks = (torch.from_numpy(page.ink_mask(encoder.token_size)) for page in pages)
    return [features[mask] for features, mask in zip(features_PND, masks, strict=True)]


def encode_pages(encoder: Encoder, pages: Sequence[Page]) -> torch.Tensor:
    """Return the vision tokens of pages of one size, without recording gradients.

    Args:
        pages: at least one.

    Returns:
        [P, n, d] on the encoder's device, in its dtype.
    """
    step = batch_size(pages[0].size, encoder.device)
    with torch.no_grad():
        parts = [encoder(encoder.pixels(pages[at : at + step]).to(encoder.device)) for at in range(0, len(pages), step)]
    return torch.cat(parts)
