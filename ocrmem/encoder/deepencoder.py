"""DeepSeek-OCR's encoder, built from transformers' own ``unlimited_ocr`` modules; no remote code.

A page goes through SAM (windowed attention over small patches, then two strided convolutions: 16 patches
become one token) and CLIP (global attention over the tokens). Two features are offered:

- ``sum``: ``tokens + CLIP(tokens)``, as the package deepseek-ocr-encoder gives. No class token takes part,
  and the position table is resized by plain bicubic interpolation, as there.
- ``concat``: CLIP's and SAM's output side by side, as DeepSeek's own decoder saw them. The class token takes
  part in attention and is dropped then; the table is resized with antialiasing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import nn
from transformers import UnlimitedOcrVisionConfig, UnlimitedOcrVisionModel

from ocrmem.encoder.architecture import clip_of, safe_to_initialize
from ocrmem.encoder.attention import attend_in_blocks
from ocrmem.encoder.page_bits import packed_bits, unpacked
from ocrmem.encoder.sam_layers import keep_in_order
from ocrmem.encoder.weights import check_tensors, open_encoder, save_native
from ocrmem.errors import ConfigError, ModelError
from ocrmem.facts import tokens_per_page
from ocrmem.rendering.page import Page

if TYPE_CHECKING:
    from transformers.models.unlimited_ocr.modeling_unlimited_ocr import (
        UnlimitedOcrSamVisionEncoder,
        UnlimitedOcrVisionEncoder,
    )

Features = Literal["sum", "concat"]
_STRIDE = 4  # patches to a token along each axis: two convolutions of stride 2


class DeepEncoder(nn.Module):
    """The frozen encoder: pixels in, vision tokens out.

    Every parameter is frozen on construction. Nothing in `forward` uses no_grad, inference_mode or detach:
    with frozen weights and pixels that need no gradient autograd records nothing anyway.

    Args:
        config: the geometry. A SAM ``initializer_range`` of 1e-10 (transformers' default) is replaced by
            0.02, since random weights that small give features that do not depend on the page.
        features: ``sum`` or ``concat``, see the module.
        vision: the modules, where they exist already; by default they are made with random weights.
    """

    def __init__(
        self,
        config: UnlimitedOcrVisionConfig,
        features: Features = "sum",
        vision: UnlimitedOcrVisionModel | DeepEncoder | None = None,
    ) -> None:
        super().__init__()
        if features not in ("sum", "concat"):
            raise ConfigError.of("model.features", f"{features!r} is not known", "Use sum or concat")
        if vision is None:
            vision = UnlimitedOcrVisionModel(safe_to_initialize(config))
        self.config = config
        self.features = features
        self.sam_encoder: UnlimitedOcrSamVisionEncoder = vision.sam_encoder
        self.vision_encoder: UnlimitedOcrVisionEncoder = vision.vision_encoder
        attend_in_blocks(self.sam_encoder)
        keep_in_order(self.sam_encoder)
        if features == "sum":
            # deepseek-ocr-encoder keeps the table as a buffer and has no class token: with both as buffers
            # the parameters are those that the feature is computed with, and a saved file still is whole.
            _to_buffer(self.vision_encoder.embeddings, "class_embedding")
            _to_buffer(self.vision_encoder.embeddings.position_embedding, "weight")
        self.requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls,
        location: str | Path,
        *,
        revision: str | None = None,
        features: Features = "sum",
        dtype: torch.dtype = torch.float32,
    ) -> DeepEncoder:
        """Load a directory or a hub model that holds DeepSeek-OCR, or what `save` wrote.

        Args:
            location: a directory, or a hub name such as ``deepseek-ai/DeepSeek-OCR``. Tensors may have
                DeepSeek's key names or transformers' native ones; only the encoder's are read.
            revision: commit, branch or tag of a hub name.
            dtype: of the weights in memory.

        Raises:
            ModelError: not there, not reachable, or tensors missing, unexpected or of a wrong shape.
        """
        files = open_encoder(str(location), revision)
        with torch.device("meta"):
            vision = UnlimitedOcrVisionModel(files.config)
        check_tensors(files, {name: tuple(t.shape) for name, t in vision.state_dict().items()})
        vision.load_state_dict(files.read(dtype), assign=True)
        embeddings = vision.vision_encoder.embeddings
        # Not saved with the weights, so it is still on the meta device.
        embeddings.register_buffer("position_ids", torch.arange(embeddings.num_positions)[None], False)
        return cls(files.config, features, vision)

    def save(self, directory: str | Path) -> None:
        """Write config.json and model.safetensors (native names), for `from_pretrained`."""
        save_native(Path(directory), self.config, self.state_dict())

    @property
    def feature_size(self) -> int:
        """Width of one vision token."""
        hidden: int = clip_of(self.config).hidden_size
        return hidden if self.features == "sum" else 2 * hidden

    @property
    def token_size(self) -> int:
        """Pixels of page along each axis that one vision token stands for."""
        patch: int = self.sam_encoder.patch_embed.projection.kernel_size[0]
        return patch * _STRIDE

    @property
    def dtype(self) -> torch.dtype:
        return self.sam_encoder.patch_embed.projection.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.sam_encoder.patch_embed.projection.weight.device

    def tokens_for(self, page_size: int) -> int:
        """Return the vision tokens of a square page; `ModelError` where tokens do not tile it."""
        return tokens_for(page_size, self.token_size)

    def packed(self, pages: Sequence[Page]) -> torch.Tensor:
        """Return pages of one size as they travel to the encoder's device: their bits, uint8 [P, S, S / 8]."""
        return packed_bits(pages)

    def pixels(self, packed: torch.Tensor) -> torch.Tensor:
        """Return `packed` pages as `forward` takes them, on their device: [P, 3, S, S] in the weights' dtype."""
        return unpacked(packed, self.dtype)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode pages.

        Args:
            pixels: [B, 3, S, S], paper +1.0 and ink -1.0; cast to the weights' dtype.

        Returns:
            [B, n, feature_size], tokens row by row from the top left.

        Raises:
            ModelError: pages that are not square or that tokens do not tile.
        """
        check_pixels(pixels, self.token_size)
        tokens_map = self.sam_encoder(pixels.to(self.dtype)).last_hidden_state  # [B, d, h, w]
        tokens = tokens_map.flatten(2).transpose(1, 2)  # [B, n, d]
        if self.features == "concat":
            seen = self.vision_encoder(tokens_map).last_hidden_state[:, 1:]
            return torch.cat([seen, tokens], dim=-1)
        table = self.vision_encoder.embeddings.position_embedding.weight
        hidden = self.vision_encoder.pre_layrnorm(tokens + resized_positions(table, *tokens_map.shape[-2:]))
        return tokens + self.vision_encoder.encoder(inputs_embeds=hidden).last_hidden_state

    def weights_sha256(self) -> str:
        """Return the hex sha256 of the weights by name and float32 value, whatever file or dtype they came in."""
        return sha256_of_weights(self.state_dict())


def tokens_for(page_size: int, token_size: int) -> int:
    """Return the vision tokens of a square page of ``page_size`` px.

    Raises:
        ModelError: tokens do not tile the page.
    """
    if page_size <= 0 or page_size % token_size:
        raise ModelError.of(
            "render.page_size",
            f"{page_size} px is not a multiple of the {token_size} px of a vision token",
            f"Use a multiple of {token_size}, such as {max(1, page_size // token_size) * token_size}",
        )
    return tokens_per_page(page_size, token_size)


def check_pixels(pixels: torch.Tensor, token_size: int) -> None:
    """Refuse anything but a batch of square RGB pages that tokens tile."""
    if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] != pixels.shape[3]:
        raise ModelError.of(
            "encoder", f"pixels are {list(pixels.shape)}", "Give [pages, 3, size, size], as Page.pixels() makes"
        )
    tokens_for(pixels.shape[-1], token_size)


def resized_positions(table: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return CLIP's position table without the class token, resized as deepseek-ocr-encoder 0.1.0 does.

    Args:
        table: [1 + g * g, d], the class token's row first.

    Returns:
        [1, height * width, d].
    """
    grid = math.isqrt(table.shape[0] - 1)
    positions = table[1:]
    if (height, width) == (grid, grid):
        return positions.unsqueeze(0)
    square = positions.view(1, grid, grid, -1).permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(square, size=(height, width), mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2)


def sha256_of_weights(tensors: dict[str, torch.Tensor]) -> str:
    """Return the hex sha256 over names, shapes and float32 values of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _to_buffer(module: nn.Module, name: str) -> None:
    parameter = cast(nn.Parameter, getattr(module, name))
    delattr(module, name)
    module.register_buffer(name, parameter.detach())
