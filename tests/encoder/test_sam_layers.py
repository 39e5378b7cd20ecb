"""SAM's layers with patches in order: transformers' numbers to the bit, and no copy that only changes the layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.encoders import random_pages, small_config, small_encoder
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.unlimited_ocr.modeling_unlimited_ocr import (
    UnlimitedOcrSamPatchEmbeddings,
    UnlimitedOcrSamVisionLayer,
)

from ocrmem.encoder.architecture import sam_of
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.sam_layers import LayerInOrder, PatchesInOrder

PAGES = 2
COPYING = ("clone", "copy_", "constant_pad_nd")
# These copy an operand that is not in order before they begin, where no count of operations sees it.
READING = ("native_layer_norm", "addmm")


class Copied(TorchDispatchMode):
    """Bytes that operations copy, and those that LayerNorms and matrices copy of an input before they read it."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.__name__.partition(".")[0]
        if name in COPYING:
            self.bytes += result.nbytes
        elif name in READING:
            read = args[0] if name == "native_layer_norm" else args[1]
            self.bytes += 0 if read.is_contiguous() else read.nbytes
        return result


def as_transformers(encoder: DeepEncoder) -> DeepEncoder:
    for module in encoder.modules():
        if type(module) is LayerInOrder:
            module.__class__ = UnlimitedOcrSamVisionLayer
        elif type(module) is PatchesInOrder:
            module.__class__ = UnlimitedOcrSamPatchEmbeddings
    return encoder


# Pages of 32 patches a side: windows of 6 reach over the edge, of 8 they do not, and of 40 one is larger than the page.
@pytest.mark.parametrize("window", [6, 8, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_are_those_of_transformers_layers_to_the_bit(window: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ours = DeepEncoder(small_config(window_size=window)).to(dtype)
    pixels = random_pages(PAGES, 256)
    with torch.no_grad():
        found = ours(pixels)
        assert torch.equal(found, as_transformers(ours)(pixels))


def test_a_layer_copies_its_patches_once_into_windows_and_once_back() -> None:
    """Bytes counted over the encoder, beside what is known to be copied of a page's patches by each layer."""
    pixels, config = random_pages(PAGES, 256), sam_of(small_config())
    copied = {}
    for name, encoder in (("ours", small_encoder()), ("theirs", as_transformers(small_encoder()))):
        with torch.no_grad(), Copied() as counted:
            encoder.sam_encoder(pixels)
        copied[name] = counted.bytes
    page = PAGES * 32 * 32 * config.hidden_size * 4
    in_windows = PAGES * 36 * 36 * config.hidden_size * 4  # six windows of six a side
    # Into windows and back; the query for both distance terms; the terms, a number for each of six lines and heads.
    terms = 2 * PAGES * 36 * 36 * config.num_attention_heads * 6 * 4
    windowed = page + page + in_windows + terms
    # The query and what was seen block by block, for the bias of whole pages is made in blocks; the terms.
    whole_page = page + page + 2 * PAGES * 32 * 32 * config.num_attention_heads * 32 * 4
    assert copied["ours"] == page + 2 * windowed + whole_page
    assert copied["theirs"] > 1.6 * copied["ours"]


def test_every_layer_and_the_patches_keep_their_weights_names() -> None:
    encoder = small_encoder()
    names = set(encoder.state_dict())
    assert all(type(layer) is LayerInOrder for layer in encoder.sam_encoder.layers)
    assert type(encoder.sam_encoder.patch_embed) is PatchesInOrder
    assert set(as_transformers(encoder).state_dict()) == names
