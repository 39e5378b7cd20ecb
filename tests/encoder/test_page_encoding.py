"""From a page's bits to the encoder's pixels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.encoders import small_encoder
from support.page_dataset import written_page

from ocrmem.encoder import page_encoding
from ocrmem.encoder.attention import FusedAttention
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.page_bits import packed_bits, unpacked
from ocrmem.encoder.page_encoding import batch_encoder, chosen_kernels, encode_pages
from ocrmem.errors import DataError
from ocrmem.rendering.page import pixel_batch

PAGES = [written_page(seed) for seed in range(3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_unpacked_bits_are_the_pages_pixels_to_the_bit(dtype: torch.dtype) -> None:
    pixels = unpacked(packed_bits(PAGES), dtype)
    assert torch.equal(pixels, torch.from_numpy(pixel_batch(PAGES)).to(dtype))


def test_features_are_those_of_pixels_made_by_the_page() -> None:
    encoder = small_encoder()
    assert torch.equal(encode_pages(encoder, PAGES), encoder(torch.from_numpy(pixel_batch(PAGES))))


@pytest.mark.parametrize("kernels", ["compiled", "fused"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_compiled_encoder_gets_whole_batches_and_gives_the_pages_features(
    kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `encode` does on a GPU, traced as there, with a compiler that leaves the traced graphs as they are."""
    seen: list[int] = []
    trace = torch.compile  # flex_attention calls it for itself

    def compiler(encoder: Any, **options: Any) -> Any:
        if not isinstance(encoder, DeepEncoder):
            return trace(encoder, **options)
        return trace(encoder, backend="eager", **options)

    encoder = small_encoder()
    expected = encode_pages(encoder, PAGES)
    encoder.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(page_encoding, "is_compiled_on", lambda device: True)
    found = batch_encoder(encoder, kernels, 5)(packed_bits(PAGES))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert seen == [5]
    fused = {type(layer.attn) is FusedAttention for layer in encoder.sam_encoder.layers}
    assert fused == {kernels == "fused"}


def encoder_on(device: str, weights: int) -> Any:
    """Stand in for an encoder of so many weights, which take no memory."""
    return SimpleNamespace(device=torch.device(device), parameters=lambda: iter([torch.empty(weights, device="meta")]))


FULL, CPU = (encoder_on(device, 397_880_576) for device in ("cuda", "cpu"))  # DeepSeek-OCR's
TINY = encoder_on("cuda", 4_200_000)  # about `english`


@pytest.mark.parametrize(
    ("kernels", "encoder", "pages", "size", "missing", "chosen", "said"),
    [
        ("auto", FULL, 23_700, 1024, "", "compiled", "Compiling the encoder, which takes a minute and pays for 23,700"),
        ("auto", FULL, 23_699, 1024, "", "plain", "compiling it pays from 23,700 pages a GPU on, not for 23,699"),
        ("auto", FULL, 30_000, 512, "", "plain", "pays from 94,800 pages"),
        ("auto", TINY, 10**6, 512, "", "plain", "pays from 8,980,734 pages"),
        ("auto", FULL, 30_000, 1024, "there is no compiler of C", "plain", "as it is, for there is no compiler of C"),
        ("auto", CPU, 10**6, 1024, "", "auto", ""),
        ("fused", FULL, 1, 1024, "", "fused", ""),
        ("plain", FULL, 10**6, 1024, "", "plain", ""),
    ],
)
def test_whether_to_compile_is_decided_by_pages_and_weights_and_said(
    kernels: str,
    encoder: Any,
    pages: int,
    size: int,
    missing: str,
    chosen: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/kept")
    monkeypatch.setattr(page_encoding, "missing_to_compile", lambda on_gpu: missing)
    found, why = chosen_kernels(kernels, encoder, pages, size)
    assert found == chosen
    assert said in why
    assert bool(why) == bool(said)


def test_on_a_cpu_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", None)
    encoder = small_encoder()
    assert torch.equal(batch_encoder(encoder, "fused", 16)(packed_bits(PAGES)), encode_pages(encoder, PAGES))


def test_an_eighth_of_a_byte_a_pixel_is_handed_to_the_device() -> None:
    bits = packed_bits(PAGES)
    assert (bits.dtype, bits.nbytes) == (torch.uint8, 3 * 256 * 256 // 8)


def test_pages_of_two_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="have the sizes 256, 512"):
        packed_bits([PAGES[0], written_page(0, 512)])
