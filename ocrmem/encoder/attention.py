"""SAM's attention with its bias in blocks.

Every head of every page adds a bias to its attention scores, made of a term for the rows and one for the columns that
lie between two patches (the decomposed relative positions of MViTv2, https://arxiv.org/abs/2112.01526, section 4.1).
transformers makes the bias of a whole batch at once, twice: for a page of 1024 px 0.8 GB a layer. Here it is made of as
many patches at a time as fit a cache, and read while it is there. The result is the same, bit for bit on a CPU.

`FusedAttention` makes no bias at all: the kernel adds the two terms to each score. On a GPU it is compiled for each
size of picture and batch; on a CPU it is there to be compared, and keeps all scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import flex_attention
from transformers.models.unlimited_ocr.modeling_unlimited_ocr import UnlimitedOcrSamVisionSdpaAttention

# Bytes of bias at a time. On a CPU what a core's cache holds; on an H100 512 MB gave 153 pages/s, 8 GB 151, 32 MB 92.
_CPU_BYTES, _GPU_BYTES = 4 << 20, 512 << 20


class BlockedAttention(UnlimitedOcrSamVisionSdpaAttention):
    """transformers' module with another `forward`; parameters and their names are its own."""

    def forward(  # type: ignore[override]  # transformers says Tensor and returns this
        self, hidden_states: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, None]:
        """Attend within every picture.

        Args:
            hidden_states: [B, H, W, heads * c]; B counts pages, or windows of pages.
            output_attentions: attention weights are never given.

        Returns:
            [B, H, W, heads * c], and None.
        """
        batch, height, width, _ = hidden_states.shape
        heads = self.num_attention_heads
        qkv = self.qkv(hidden_states).view(batch, height * width, 3, heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # [B, heads, H * W, c]
        if not self.use_rel_pos:
            seen = F.scaled_dot_product_attention(query, key, value)
        else:
            rows, columns = self._distance_terms(query.reshape(batch, heads, height, width, -1))
            seen = self._attend(query, key, value, rows, columns)
        return self.proj(seen.transpose(1, 2).reshape(batch, height, width, -1)), None

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rows: torch.Tensor,
        columns: torch.Tensor,
    ) -> torch.Tensor:
        """Return [B, heads, H * W, c] of query, key and value of that shape and `_distance_terms`."""
        height, width = rows.shape[2:4]
        # A sum of other layouts would take theirs, and flattening it would copy the whole bias.
        rows, columns = rows.contiguous(), columns.contiguous()

        def attend(pictures: slice, lines: slice, patches: slice) -> torch.Tensor:
            bias = rows[pictures, :, lines, :, :, None] + columns[pictures, :, lines, :, None, :]
            bias = bias.flatten(2, 3).flatten(3)
            return F.scaled_dot_product_attention(
                query[pictures, :, patches], key[pictures], value[pictures], attn_mask=bias
            )

        blocks = [
            (pictures, lines, slice(lines.start * width, lines.stop * width))
            for pictures, lines in _blocks(query, height, width)
        ]
        if len(blocks) == 1:
            return attend(*blocks[0])
        seen = torch.empty_like(query)
        for pictures, lines, patches in blocks:
            seen[pictures, :, patches] = attend(pictures, lines, patches)
        return seen

    def _distance_terms(self, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what a query adds for keys by row, [B, heads, H, W, H], and by column, [B, heads, H, W, W]."""
        batch, heads, height, width, size = query.shape
        by_row = self.get_rel_pos(height, height, self.rel_pos_h)
        by_column = self.get_rel_pos(width, width, self.rel_pos_w)
        # Both products read one copy: [H, B * heads, W, c].
        in_lines = query.permute(2, 0, 1, 3, 4).reshape(height, batch * heads, width, size)
        rows = torch.bmm(in_lines.flatten(1, 2), by_row.transpose(1, 2)).view(height, batch, heads, width, -1)
        columns = torch.bmm(in_lines.flatten(0, 1).transpose(0, 1), by_column.transpose(1, 2))
        columns = columns.view(width, height, batch, heads, -1)
        return rows.permute(1, 2, 0, 3, 4), columns.permute(2, 3, 1, 0, 4)


class FusedAttention(BlockedAttention):
    """The same by FlexAttention, whose kernel adds the distance terms where it has the score."""

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rows: torch.Tensor,
        columns: torch.Tensor,
    ) -> torch.Tensor:
        width = rows.shape[3]
        by_row, by_column = rows.flatten(2, 3), columns.flatten(2, 3)  # [B, heads, H * W, H or W]

        def with_distance(score: Any, picture: Any, head: Any, patch: Any, other: Any) -> Any:
            down, across = other // width, other % width
            return score + by_row[picture, head, patch, down] + by_column[picture, head, patch, across]

        # Within an encoder that is compiled as a whole the kernel is a part of it.
        alone = query.is_cuda and not torch.compiler.is_compiling()
        kernel = cast(Callable[..., torch.Tensor], _compiled_kernel() if alone else flex_attention)
        return kernel(query, key, value, score_mod=with_distance)


def attend_in_blocks(encoder: nn.Module) -> None:
    """Make all of SAM's attention in ``encoder`` work in blocks; weights stay where they are."""
    _attend_as(BlockedAttention, encoder)


def attend_fused(encoder: nn.Module) -> None:
    """Make all of SAM's attention in ``encoder`` add its distance terms within the kernel."""
    _attend_as(FusedAttention, encoder)


def _attend_as(kind: type[BlockedAttention], encoder: nn.Module) -> None:
    for module in encoder.modules():
        if type(module) in (UnlimitedOcrSamVisionSdpaAttention, BlockedAttention, FusedAttention):
            module.__class__ = kind


@cache
def _compiled_kernel() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)


def _blocks(query: torch.Tensor, height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield pictures and lines of patches whose bias is made together; all at once where gradients are recorded."""
    batch, heads = query.shape[:2]
    if torch.is_grad_enabled() and query.requires_grad:
        yield slice(0, batch), slice(0, height)  # every block's bias would be kept for backward anyway
        return
    budget = _GPU_BYTES if query.is_cuda else _CPU_BYTES
    line = heads * width * height * width * query.element_size()
    lines = min(height, max(1, budget // line))
    pictures = max(1, budget // (line * height))
    for first in range(0, batch, pictures):
        for top in range(0, height, lines):
            yield slice(first, first + pictures), slice(top, min(top + lines, height))
