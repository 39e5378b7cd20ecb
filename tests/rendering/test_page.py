"""Pages and the forms that others need of them."""

from __future__ import annotations

import hashlib
import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from ocrmem.config import RenderSection
from ocrmem.errors import DataError
from ocrmem.rendering import Page, load_atlas, render_text
from ocrmem.rendering.page import pixel_batch


def random_page(size: int = 64, seed: int = 0) -> Page:
    bits = np.random.default_rng(seed).integers(0, 256, (size, size // 8), np.uint8)
    return Page(bits, "test-1")


def test_png_shows_the_bits_black_on_white() -> None:
    page = random_page()
    picture = Image.open(io.BytesIO(page.png()))
    assert (picture.mode, picture.size) == ("1", (64, 64))
    np.testing.assert_array_equal(np.asarray(picture), np.unpackbits(page.bits, axis=1) == 0)


@pytest.mark.parametrize("size", [64, 200])  # one band of rows, and several with a smaller last one
def test_pixels_equal_to_tensor_and_normalize_of_the_picture(size: int) -> None:
    page = random_page(size)
    rgb = np.asarray(Image.open(io.BytesIO(page.png())).convert("RGB"), np.float32)
    expected = (rgb.transpose(2, 0, 1) / 255 - 0.5) / 0.5
    assert page.pixels().dtype == np.float32
    np.testing.assert_array_equal(page.pixels(), expected)


def test_pixels_can_be_written_to_without_changing_the_page() -> None:
    page = random_page()
    page.pixels()[:] = 0
    assert page.pixels().min() == -1


def test_ink_pixels_counts_black_pixels() -> None:
    page = random_page()
    assert page.ink_pixels == np.unpackbits(page.bits).sum()


@pytest.mark.parametrize("token_size", [8, 16, 32, 64])
def test_ink_mask_marks_patches_with_ink_row_by_row(token_size: int) -> None:
    bits = np.zeros((64, 8), np.uint8)
    bits[3, 1] = 0b10000000  # x 8, y 3
    bits[40, 7] = 0b00000001  # x 63, y 40
    side = 64 // token_size
    expected = np.zeros((side, side), bool)
    expected[3 // token_size, 8 // token_size] = True
    expected[40 // token_size, 63 // token_size] = True
    mask = Page(bits, "test-1").ink_mask(token_size)
    assert mask.dtype == bool
    assert mask.tolist() == expected.reshape(-1).tolist()


def test_hash_is_sha256_of_version_and_bits() -> None:
    page = random_page()
    assert page.hash == hashlib.sha256(b"test-1\0" + page.bits.tobytes()).hexdigest()


def test_hash_differs_by_one_pixel_and_by_atlas() -> None:
    page = random_page()
    bits = page.bits.copy()
    bits[0, 0] ^= 1
    hashes = {page.hash, Page(bits, "test-1").hash, Page(page.bits, "test-2").hash}
    assert len(hashes) == 3


def test_bytes_come_back_as_the_same_page() -> None:
    page = random_page()
    assert Page.from_bytes(page.to_bytes(), 64, "test-1").hash == page.hash


@pytest.mark.parametrize(("count", "size"), [(511, 64), (512, 32), (0, 0), (512, -64), (2, 4)])
def test_bytes_of_another_size_are_refused(count: int, size: int) -> None:
    with pytest.raises(DataError, match="ocrmem render"):
        Page.from_bytes(bytes(count), size, "test-1")


@pytest.mark.parametrize(
    "bits",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 8), np.float32),
        np.zeros(512, np.uint8),
        np.zeros((0, 0), np.uint8),
    ],
)
def test_a_page_that_is_not_packed_and_square_is_refused(bits: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"uint8 \[S, S / 8\]"):
        Page(bits, "test-1")


@pytest.mark.parametrize("token_size", [0, 12, 48, 128])
def test_tokens_that_do_not_divide_the_page_are_refused(token_size: int) -> None:
    with pytest.raises(DataError, match="token_size"):
        random_page().ink_mask(token_size)


def test_a_real_page_keeps_only_the_tokens_it_wrote_on() -> None:
    page = render_text("hello\n" * 4, RenderSection(), load_atlas()).pages[0]
    mask = page.ink_mask(64)
    assert mask.shape == (256,)
    assert mask.nonzero()[0].tolist() == [0]


def test_a_batch_of_pages_is_written_once_and_in_its_place() -> None:
    """Bytes that numpy holds for a batch: the tensor, and an index of a forty-eighth of one page."""
    pages = [Page(np.random.default_rng(seed).integers(0, 256, (256, 32), np.uint8), "test-1") for seed in range(6)]
    expected = np.stack([page.pixels() for page in pages])
    tracemalloc.start()
    try:
        batch = pixel_batch(pages)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(batch, expected)
    assert batch.nbytes <= peak < batch.nbytes + batch[0].nbytes / 24


@pytest.mark.parametrize("sizes", [(), (64, 128)])
def test_pages_of_different_sizes_make_no_batch(sizes: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="Give pages of one size"):
        pixel_batch([Page(np.zeros((size, size // 8), np.uint8), "test-1") for size in sizes])
