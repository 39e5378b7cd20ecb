"""SAM's layers without copies of their patches that change nothing but the layout.

transformers hands the first convolution's output on as it lies in memory, channel by channel. Every sum after it keeps
that layout, so every layer copies the page anew for each LayerNorm and each matrix. It makes windows by padding the
page, copying it window by window, copying it back and copying it once more without the padding. Here patches lie one
behind the other from the start, and windows are one copy there and one back. The features are the same, bit for bit on
a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from transformers.models.unlimited_ocr.modeling_unlimited_ocr import (
    UnlimitedOcrSamPatchEmbeddings,
    UnlimitedOcrSamVisionLayer,
)


class PatchesInOrder(UnlimitedOcrSamPatchEmbeddings):
    """transformers' module with another `forward`; parameters and their names are its own."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return patches of [B, 3, S, S], contiguous [B, H, W, C]."""
        return super().forward(pixel_values).contiguous()


class LayerInOrder(UnlimitedOcrSamVisionLayer):
    """transformers' module with another `forward`; parameters and their names are its own."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # transformers: a tuple
        """Return what the layer makes of patches [B, H, W, C]."""
        normed = self.layer_norm1(hidden_states)
        if self.window_size:
            size = hidden_states.shape[1:3]
            seen = _joined(self.attn(_windows(normed, self.window_size))[0], *size)
        else:
            seen = self.attn(normed)[0]
        hidden_states = hidden_states + seen
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))


def keep_in_order(encoder: nn.Module) -> None:
    """Let SAM's layers and patch embedding in ``encoder`` work without such copies; weights stay where they are."""
    for module in encoder.modules():
        if type(module) is UnlimitedOcrSamPatchEmbeddings:
            module.__class__ = PatchesInOrder
        elif type(module) is UnlimitedOcrSamVisionLayer:
            module.__class__ = LayerInOrder


def _windows(patches: torch.Tensor, window: int) -> torch.Tensor:
    """Cut patches [B, H, W, C] into windows [B * windows, window, window, C]; zeros where they reach over the edge."""
    batch, height, width, size = patches.shape
    down, across = -(-height // window), -(-width // window)
    shape = (batch, down, across, window, window, size)
    is_whole = (height, width) == (down * window, across * window)
    windows = patches.new_empty(shape) if is_whole else patches.new_zeros(shape)
    for in_window, on_page in _same_patches(windows, patches):
        in_window.copy_(on_page)
    return windows.view(-1, window, window, size)


def _joined(windows: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the patches [B, height, width, C] that `_windows` cut; what stood over the edge is left out."""
    window, size = windows.shape[2:]
    windows = windows.view(-1, -(-height // window), -(-width // window), window, window, size)
    patches = windows.new_empty(len(windows), height, width, size)
    for in_window, on_page in _same_patches(windows, patches):
        on_page.copy_(in_window)
    return patches


def _same_patches(windows: torch.Tensor, patches: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield views of the same patches in windows [B, down, across, window, window, C] and on a page [B, H, W, C].

    They are those of all whole windows, and those of the windows that the right and the lower edge cut.
    """
    lines, window = windows.transpose(2, 3), windows.shape[3]
    for down, rows in _whole_and_cut(patches.shape[1], window):
        for across, columns in _whole_and_cut(patches.shape[2], window):
            on_page = patches[:, rows, columns].unflatten(2, (across.stop - across.start, -1))
            on_page = on_page.unflatten(1, (down.stop - down.start, -1))
            height, width = on_page.shape[2], on_page.shape[4]
            yield lines[:, down, :height, across, :width], on_page


def _whole_and_cut(patches: int, window: int) -> Iterator[tuple[slice, slice]]:
    """Yield windows along an axis, and the patches in them: the whole ones, then the one that the edge cuts."""
    whole, rest = divmod(patches, window)
    if whole:
        yield slice(0, whole), slice(0, whole * window)
    if rest:
        yield slice(whole, whole + 1), slice(whole * window, patches)
