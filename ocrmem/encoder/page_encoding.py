"""Pages through the encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch._dynamo.exc import TorchDynamoException

from ocrmem.encoder.attention import attend_fused
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.wrapped_encoder import WrappedEncoder
from ocrmem.environment import keep_compiled, missing_to_compile
from ocrmem.errors import ConfigError, first_line
from ocrmem.rendering.page import Page

_CPU_PIXELS, _GPU_PIXELS = 1 << 20, 1 << 24  # a page of 1024 px, or 16; no gain from more on a CPU

AUTO, PLAIN, COMPILED, FUSED = "auto", "plain", "compiled", "fused"  # of ``model.encoder_kernels``
# An H100 took 47 s to compile DeepSeek-OCR's encoder, which then gave 224 pages of 1024 px a second; as it is now, 155
# (docs/performance.md). So it pays from 47 / (1 / 155 - 1 / 224) pages on, and for smaller encoders from more.
_WORTH_COMPILING = 23_700 * 1024**2 * 397_880_576  # pages, pixels, weights
Encoder = DeepEncoder | WrappedEncoder


def batch_size(page_size: int, device: torch.device) -> int:
    """Return how many pages go through the encoder together."""
    budget = _GPU_PIXELS if device.type == "cuda" else _CPU_PIXELS
    return max(1, budget // (page_size * page_size))


def is_compiled_on(device: torch.device) -> bool:
    """Return whether ``model.encoder_kernels`` counts on a device."""
    return device.type == "cuda"


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
    parts = (packed(encoder, pages[at : at + step]) for at in range(0, len(pages), step))
    return torch.cat([encode_packed(encoder, part) for part in parts])


def packed(encoder: Encoder, pages: Sequence[Page]) -> torch.Tensor:
    """Return the encoder's own `packed` pages, pinned where they are to be copied to a GPU."""
    batch = encoder.packed(pages)
    return batch.pin_memory() if encoder.device.type == "cuda" else batch


def encode_packed(
    encoder: Encoder, batch: torch.Tensor, forward: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> torch.Tensor:
    """Return the vision tokens of a batch of `packed` pages, without recording gradients or waiting for a GPU.

    Args:
        forward: the encoder's, compiled; None: as it is.

    Returns:
        [P, n, d] on the encoder's device, in its dtype.
    """
    pixels = encoder.pixels(batch.to(encoder.device, non_blocking=True))
    with torch.no_grad():
        return (encoder if forward is None else forward)(pixels)  # a compiled module has no truth value


def chosen_kernels(kernels: str, encoder: Encoder, pages: int, page_size: int) -> tuple[str, str]:
    """Return which of ``model.encoder_kernels`` encode so many pages in one process, and a sentence that says why.

    Returns:
        ``kernels`` themselves and an empty sentence, unless they are `AUTO` and there is something to decide.
    """
    if kernels != AUTO or not is_compiled_on(encoder.device):
        return kernels, ""
    weights = sum(weight.numel() for weight in encoder.parameters())
    least = -(-_WORTH_COMPILING // (page_size**2 * weights))
    if pages < least:
        return PLAIN, f"The encoder runs as it is: compiling it pays from {least:,} pages a GPU on, not for {pages:,}."
    if missing := missing_to_compile(on_gpu=True):
        return PLAIN, f"The encoder runs as it is, for {missing}: compiled, {pages:,} pages would take less time."
    return (
        COMPILED,
        f"Compiling the encoder, which takes a minute and pays for {pages:,} pages; kept in {keep_compiled()}.",
    )


def batch_encoder(encoder: Encoder, kernels: str, pages: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return `encode_packed` for batches of up to so many pages, on a GPU by these `chosen_kernels`.

    What is compiled fits one size of batch, so a smaller one is filled up with empty pages.

    Raises:
        ConfigError: (what is returned does) the kernels cannot be compiled here.
    """
    if kernels in (AUTO, PLAIN) or not is_compiled_on(encoder.device):
        return partial(encode_packed, encoder)
    if kernels == FUSED:
        attend_fused(encoder)
    keep_compiled()
    compiled = torch.compile(encoder, dynamic=False)

    def encode(batch: torch.Tensor) -> torch.Tensor:
        filled = F.pad(batch, [0, 0] * (batch.ndim - 1) + [0, pages - len(batch)])
        try:
            return encode_packed(encoder, filled, compiled)[: len(batch)]
        except TorchDynamoException as error:
            raise ConfigError.of(
                "model.encoder_kernels",
                f"is {kernels}, but torch cannot compile the encoder here ({first_line(error)})",
                "Install a C compiler and Python's headers, or set it to plain",
            ) from error

    return encode
