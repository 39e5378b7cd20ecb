"""The same interface around an object of the package deepseek-ocr-encoder.

Its ``encode`` and ``_forward_core`` are decorated with ``torch.inference_mode``: what they return cannot be
saved for backward, so proj could not train on it. `WrappedEncoder` calls the parts they are made of.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ocrmem.encoder.deepencoder import check_pixels, resized_positions, sha256_of_weights, tokens_for
from ocrmem.errors import ModelError

_PARTS = ("sam", "clip_pre", "clip_tr", "clip_pos_table", "embed_dim")


class WrappedEncoder(nn.Module):
    """A ``deepseek_ocr_encoder.DeepSeekOCREncoder`` as a frozen encoder of ocrmem; its features are ``sum``.

    Args:
        inner: the package's object, on its device and in its dtype. Its parameters are frozen here.

    Raises:
        ModelError: not such an object.
    """

    features = "sum"

    def __init__(self, inner: Any) -> None:
        super().__init__()
        missing = [name for name in _PARTS if not hasattr(inner, name)]
        if missing:
            raise ModelError.of(
                "encoder",
                f"{type(inner).__name__} has no {', '.join(missing)}",
                "Give a DeepSeekOCREncoder of deepseek-ocr-encoder 0.1.0",
            )
        # Not the object itself: its encode() would bring inference_mode back in.
        self.sam: nn.Module = inner.sam
        self.clip_pre: nn.Module = inner.clip_pre
        self.clip_tr: nn.Module = inner.clip_tr
        self.register_buffer("clip_pos_table", inner.clip_pos_table)
        self._feature_size = int(inner.embed_dim)
        patch: nn.Conv2d = inner.sam.patch_embed.proj
        self._token_size = int(patch.kernel_size[0]) * 4
        self.requires_grad_(False)

    @property
    def feature_size(self) -> int:
        """Width of one vision token."""
        return self._feature_size

    @property
    def token_size(self) -> int:
        """Pixels of page along each axis that one vision token stands for."""
        return self._token_size

    @property
    def dtype(self) -> torch.dtype:
        return next(self.sam.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.sam.parameters()).device

    def tokens_for(self, page_size: int) -> int:
        """Return the number of vision tokens of a square page; `ModelError` where tokens do not tile it."""
        return tokens_for(page_size, self.token_size)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode pages [B, 3, S, S] to [B, n, feature_size], as `DeepEncoder.forward` does.

        The computation is ``DeepSeekOCREncoder._forward_core`` of 0.1.0, without its position cache: tensors
        that its own ``encode`` put there are inference tensors.
        """
        check_pixels(pixels, self.token_size)
        tokens_map = self.sam(pixels.to(self.dtype))
        tokens = tokens_map.flatten(2).transpose(1, 2).contiguous()
        table = self.get_buffer("clip_pos_table")
        hidden = self.clip_pre(tokens + resized_positions(table, *tokens_map.shape[-2:]))
        return tokens + self.clip_tr(hidden)

    def weights_sha256(self) -> str:
        """Return the hex sha256 of the weights by name and float32 value."""
        return sha256_of_weights(self.state_dict())
