"""The same interface around an object of the package deepseek-ocr-encoder.

Its ``encode`` and ``_forward_core`` are decorated with ``torch.inference_mode``: what they return cannot be saved for
backward, so proj could not train on it. `WrappedEncoder` returns a copy made outside of it, which can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from ocrmem.encoder.deepencoder import DeepEncoder, check_pixels, sha256_of_weights, tokens_for
from ocrmem.errors import ModelError
from ocrmem.extras import not_installed
from ocrmem.rendering.page import Page

PACKAGE = "deepseek-ocr-encoder"  # as model.encoder names it
_PARTS = ("sam", "clip_pre", "clip_tr", "clip_pos_table", "embed_dim")
_TRAINED_WITH = (0.5, 0.5, 0.5)  # DeepSeek-OCR's mean and deviation; the package leaves CLIP's to be replaced


class WrappedEncoder(nn.Module):
    """A ``deepseek_ocr_encoder.DeepSeekOCREncoder`` as a frozen encoder of ocrmem; its features are ``sum``.

    Args:
        inner: the package's object, on its device and in its dtype. Its parameters are frozen here; it is used as it
            is, its preprocessing too.

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
        self.inner = inner
        self.requires_grad_(False)

    @classmethod
    def of_native(cls, encoder: DeepEncoder) -> Self:
        """Build the package's encoder from native modules: the same weights, not a copy of them.

        Raises:
            ConfigError: the package is not installed.
        """
        clip = encoder.vision_encoder
        vision = SimpleNamespace(
            embeddings=SimpleNamespace(position_embedding=clip.embeddings.position_embedding),
            pre_layrnorm=clip.pre_layrnorm,
            transformer=_Hidden(clip.encoder),
        )
        model = SimpleNamespace(sam_model=_Hidden(encoder.sam_encoder), vision_model=vision)
        return cls.of_model(model, dtype=encoder.dtype, device=encoder.device)

    @classmethod
    def of_model(cls, model: Any, *, dtype: torch.dtype, device: torch.device) -> Self:
        """Build the package's encoder from a model, such as DeepSeek's remote code makes; it normalises as that does.

        Args:
            model: has ``sam_model`` and ``vision_model``, itself or in its ``base_model``. The package takes it apart:
                its encoder is moved and cast in place, and its language model is dropped.

        Raises:
            ConfigError: the package is not installed.
        """
        try:
            from deepseek_ocr_encoder import DeepSeekOCREncoder
        except ImportError:
            raise not_installed("model.encoder", "deepseek_ocr_encoder") from None
        inner = DeepSeekOCREncoder(model, device=device, dtype=dtype, precompute_pos_for_1024=False)
        inner.embed_dim = inner.clip_pos_table.shape[1]  # 0.1.0 writes 1024 there; any width works
        normalize = inner._preproc_1024.transforms[-1]
        normalize.mean = normalize.std = _TRAINED_WITH
        return cls(inner)

    @property
    def feature_size(self) -> int:
        """Width of one vision token."""
        return int(self.inner.embed_dim)

    @property
    def token_size(self) -> int:
        """Pixels of page along each axis that one vision token stands for."""
        patch = next(module for module in self.inner.sam.modules() if isinstance(module, nn.Conv2d))
        return int(patch.kernel_size[0]) * 4

    @property
    def dtype(self) -> torch.dtype:
        return next(self.inner.sam.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.inner.sam.parameters()).device

    def tokens_for(self, page_size: int) -> int:
        """Return the number of vision tokens of a square page; `ModelError` where tokens do not tile it."""
        return tokens_for(page_size, self.token_size)

    def packed(self, pages: Sequence[Page]) -> torch.Tensor:
        """Return pages of one size as the package's own preprocessing gives them: float32 [P, 3, S, S].

        Its Resize is left out: to 1024 px it changes nothing in a page of 1024 px, and pages are never resampled.
        """
        return torch.stack([self._prepared(page) for page in pages])

    def pixels(self, packed: torch.Tensor) -> torch.Tensor:
        """Return `packed` pages as they are: the package has prepared them."""
        return packed

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode pages [B, 3, S, S] to [B, n, feature_size], as `DeepEncoder.forward` does.

        ``pixels`` are normalised already, as `packed` returns them.
        """
        check_pixels(pixels, self.token_size)
        prepared = pixels.to(self.dtype).to(memory_format=torch.channels_last)
        return self.inner._forward_core(prepared).clone()

    def weights_sha256(self) -> str:
        """Return the hex sha256 of the weights by name and float32 value."""
        return sha256_of_weights(self.state_dict() | {"clip_pos_table": self.inner.clip_pos_table})

    def _prepared(self, page: Page) -> torch.Tensor:
        grey = 255 * np.unpackbits(~page.bits, axis=1)
        value: Any = np.repeat(grey[:, :, None], 3, axis=2)  # RGB, as ToTensor takes it of an array too
        for transform in self.inner._preproc_1024.transforms[1:]:
            value = transform(value)
        return value

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        # Positions that the package has computed are no buffers: they would stay where the weights come from.
        self.inner._pos_fixed_16 = None
        self.inner._pos_cache.clear()
        return super()._apply(fn, recurse)


class _Hidden(nn.Module):
    """A module of transformers that returns its last hidden state alone, as the package expects."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.module(tensor).last_hidden_state
