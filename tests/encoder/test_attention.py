"""SAM's attention in blocks: transformers' numbers, without its N x N bias."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from support.encoders import small_encoder
from support.live_bytes import LiveBytes
from transformers import UnlimitedOcrSamVisionConfig
from transformers.models.unlimited_ocr.modeling_unlimited_ocr import UnlimitedOcrSamVisionSdpaAttention

from ocrmem.encoder import attention
from ocrmem.encoder.attention import BlockedAttention, FusedAttention, attend_fused, attend_in_blocks

HEADS, WIDTH = 2, 32


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pair(side: int, relative: bool = True) -> tuple[UnlimitedOcrSamVisionSdpaAttention, BlockedAttention]:
    """transformers' module for pictures of ``side`` patches a side, and ours with the same weights."""
    config = UnlimitedOcrSamVisionConfig(
        hidden_size=WIDTH, num_attention_heads=HEADS, image_size=8 * side, patch_size=8, use_rel_pos=relative
    )
    torch.manual_seed(0)
    theirs = UnlimitedOcrSamVisionSdpaAttention(config, window_size=0)
    if relative:
        torch.nn.init.normal_(theirs.rel_pos_h)
        torch.nn.init.normal_(theirs.rel_pos_w)
    ours = copy.deepcopy(theirs)
    attend_in_blocks(ours)
    assert type(ours) is BlockedAttention
    return theirs, ours


# Bytes of bias: one line of patches, three of the eight (the last block is smaller), two of three pictures, all.
LINE = HEADS * 8 * 8 * 8 * 4


@pytest.mark.parametrize("budget", [1, LINE, 3 * LINE, 16 * LINE, 1 << 30])
@pytest.mark.parametrize("relative", [True, False])
def test_any_block_size_gives_transformers_numbers(
    budget: int, relative: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = pair(8, relative)
    monkeypatch.setattr(attention, "_CPU_BYTES", budget)
    hidden = torch.randn(3, 8, 8, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(hidden)[0], theirs(hidden)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_terms_added_within_the_kernel_give_transformers_numbers(relative: bool, dtype: torch.dtype) -> None:
    theirs, ours = pair(8, relative)
    attend_fused(ours)
    assert type(ours) is FusedAttention
    hidden = torch.randn(3, 8, 8, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact = theirs(hidden)[0]
        found = ours.to(dtype)(hidden.to(dtype))[0].float()
    tolerance = 1e-5 if dtype is torch.float32 else 0.02 * float(exact.abs().max())
    torch.testing.assert_close(found, exact, rtol=0, atol=tolerance)


def test_the_plain_way_comes_back() -> None:
    encoder = small_encoder()
    layers = encoder.sam_encoder.layers
    attend_fused(encoder)
    assert all(type(layer.attn) is FusedAttention for layer in layers)
    attend_in_blocks(encoder)
    assert all(type(layer.attn) is BlockedAttention for layer in layers)


def test_gradients_of_weights_and_positions_are_transformers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = pair(8)
    monkeypatch.setattr(attention, "_CPU_BYTES", 1)
    hidden = torch.randn(2, 8, 8, WIDTH, generator=torch.Generator().manual_seed(1))
    for module in (theirs, ours):
        module(hidden)[0].square().sum().backward()
    wanted = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-5, atol=1e-6, msg=name)


def test_the_bias_of_a_batch_is_never_in_memory_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Live bytes, counted, in blocks of 1 MiB of a bias of 16."""
    theirs, ours = pair(32)
    monkeypatch.setattr(attention, "_CPU_BYTES", 1 << 20)
    hidden = torch.randn(2, 32, 32, WIDTH)
    peaks = []
    for module in (theirs, ours):
        with torch.no_grad(), LiveBytes([hidden, *module.parameters()]) as memory:
            module(hidden)
        peaks.append(memory.peak)
    bias = 4 * 2 * HEADS * 1024 * 1024
    assert peaks[0] > bias
    assert peaks[1] < bias / 3


def test_every_sam_layer_of_an_encoder_attends_in_blocks_and_keeps_its_names() -> None:
    encoder = small_encoder()
    layers = encoder.sam_encoder.layers
    assert all(type(layer.attn) is BlockedAttention for layer in layers)
    assert {"qkv.weight", "proj.weight", "rel_pos_h", "rel_pos_w"} <= set(layers[0].attn.state_dict())
