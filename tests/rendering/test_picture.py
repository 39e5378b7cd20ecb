"""Pictures as pages: every kind of PNG and JPEG that a scanner, a phone or a screen leaves, and files that are none."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ocrmem.config import RenderSection
from ocrmem.errors import ConfigError, DataError, MissingInputError
from ocrmem.rendering import Page, load_atlas, render_text
from ocrmem.rendering.picture import read_picture

SIZE = 256
SECTION = RenderSection(page_size=SIZE, token_size=32)


@pytest.fixture(scope="module")
def drawn() -> Page:
    text = "a page that was printed, and lies on the glass of a scanner now\n" * 9
    return render_text(text, SECTION, load_atlas(SECTION.atlas)).pages[0]


def picture_of(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(page.png())).convert("L")


def sixteen_bits(page: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(page).astype(np.uint16) * 257)


def on_nothing(page: Image.Image, mode: str) -> Image.Image:
    """Ink on transparent black: without paper under it all would be black."""
    return Image.merge("LA", (Image.new("L", page.size), Image.eval(page, lambda grey: 255 - grey))).convert(mode)


def held_sideways(page: Image.Image) -> bytes:
    """As a phone writes it: the pixels turned, and EXIF saying how to turn them back (6: 90 degrees clockwise)."""
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    page.transpose(Image.Transpose.ROTATE_90).save(content, "PNG", exif=exif)
    return content.getvalue()


def saved(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


SAME = {
    "1 bit": lambda page: saved(page.convert("1")),
    "8 bits": saved,
    "16 bits": lambda page: saved(sixteen_bits(page)),
    "colour": lambda page: saved(page.convert("RGB")),
    "palette": lambda page: saved(page.convert("P")),
    "transparent": lambda page: saved(on_nothing(page, "RGBA")),
    "transparent grey": lambda page: saved(on_nothing(page, "LA")),
    "faint": lambda page: saved(page.point(lambda grey: 200 if grey else 150)),
    "dark screen": lambda page: saved(page.point(lambda grey: 30 if grey else 230)),
    "JPEG": lambda page: saved(page, "JPEG", quality=95),
    "JPEG in colour": lambda page: saved(page.convert("RGB"), "JPEG", quality=95, subsampling=0),
    "JPEG for print": lambda page: saved(page.convert("CMYK"), "JPEG", quality=95),
    "progressive JPEG": lambda page: saved(page, "JPEG", quality=95, progressive=True),
    "held sideways": held_sideways,
}


@pytest.mark.parametrize("kind", SAME)
def test_a_drawn_page_comes_back_bit_by_bit_from_any_kind_of_file(tmp_path: Path, drawn: Page, kind: str) -> None:
    file = tmp_path / "page"
    file.write_bytes(SAME[kind](picture_of(drawn)))
    picture = read_picture(file, SIZE)
    assert np.array_equal(picture.page.bits, drawn.bits)
    assert picture.page.hash != drawn.hash  # a page's hash says what made it
    assert ("mostly dark" in picture.told) == (kind == "dark screen")
    assert "shrunk" not in picture.told


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I"])
def test_a_pil_image_of_any_mode_is_taken(drawn: Page, mode: str) -> None:
    image = picture_of(drawn)
    given = Image.fromarray(np.asarray(image).astype(np.int32) * 257) if mode == "I" else image.convert("RGB")
    given = given if mode in ("I", "RGB") else _in(given, mode)
    assert np.array_equal(read_picture(given, SIZE).page.bits, drawn.bits)


def _in(image: Image.Image, mode: str) -> Image.Image:
    if mode != "LAB":
        return image.convert(mode)
    return Image.merge("LAB", (image.convert("L"), *(Image.new("L", image.size, 0) for _ in "ab")))


@pytest.mark.parametrize(
    ("size", "shrunk", "said"),
    [
        ((512, 512), (256, 256), "512 x 512 px, shrunk to 256 x 256, ink"),
        ((1000, 500), (256, 128), "1000 x 500 px, shrunk to 256 x 128, on a page of 256 px, ink"),
        ((100, 800), (32, 256), "100 x 800 px, shrunk to 32 x 256, on a page of 256 px, ink"),
        ((60, 40), (60, 40), "60 x 40 px, on a page of 256 px, ink"),
        ((4000, 3), (256, 1), "4000 x 3 px, shrunk to 256 x 1, on a page of 256 px, ink"),
    ],
)
def test_a_picture_of_another_size_is_shrunk_into_the_corner_and_that_is_said(
    size: tuple[int, int], shrunk: tuple[int, int], said: str
) -> None:
    image = Image.new("L", size, 255)
    image.paste(0, (0, 0, size[0] // 4, size[1]))  # a bar of ink along the left edge, a quarter of the width
    picture = read_picture(image, SIZE)
    assert picture.told.startswith(said)
    ink = np.unpackbits(picture.page.bits, axis=1)
    assert not ink[shrunk[1] :].any()
    assert not ink[:, shrunk[0] // 4 + 1 :].any()
    assert ink[: shrunk[1], : shrunk[0] // 4 - 1].all()


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30000, 30000, 1, 0, 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + zlib.compress(bytes(64)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


NONE: dict[str, tuple[Callable[[Image.Image], bytes], str]] = {
    "empty": (lambda page: b"", "is empty"),
    "text": (lambda page: b"not a picture", "is neither PNG nor JPEG"),
    "PDF": (lambda page: b"%PDF-1.7 ...", "is neither PNG nor JPEG"),
    "GIF": (lambda page: saved(page, "GIF"), "is neither PNG nor JPEG"),
    "PNG cut short": (lambda page: saved(page)[:-400], "is damaged"),
    "PNG's first bytes": (lambda page: saved(page)[:12], "is damaged"),
    "JPEG cut short": (lambda page: saved(page, "JPEG")[:-400], "is damaged"),
    "JPEG's first bytes": (lambda page: saved(page, "JPEG")[:5], "is damaged"),
    "PNG with a flipped byte": (lambda page: saved(page)[:60] + b"\xff" + saved(page)[61:], "is damaged"),
    "bomb": (lambda page: bomb(), "has more than 89,478,485 pixels"),
    "blank": (lambda page: saved(Image.new("L", (SIZE, SIZE), 255)), "is of one shade"),
    "black": (lambda page: saved(Image.new("RGB", (SIZE, SIZE))), "is of one shade"),
}


@pytest.mark.parametrize("kind", NONE)
def test_what_is_no_page_is_named_with_a_remedy(tmp_path: Path, drawn: Page, kind: str) -> None:
    content, said = NONE[kind]
    file = tmp_path / "scan.png"
    file.write_bytes(content(picture_of(drawn)))
    with pytest.raises(DataError) as caught:
        read_picture(file, SIZE)
    [problem] = caught.value.problems
    assert problem.place == str(file)
    assert problem.message.startswith(said)
    assert problem.remedy


def test_a_file_that_is_not_there_and_a_directory_are_no_tracebacks(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="is not there"):
        read_picture(tmp_path / "none.png", SIZE)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_picture(tmp_path, SIZE)


def test_floating_point_is_refused_because_its_white_is_not_known() -> None:
    with pytest.raises(DataError, match="picture: has pixels in floating point"):
        read_picture(Image.new("F", (8, 8)), SIZE)
