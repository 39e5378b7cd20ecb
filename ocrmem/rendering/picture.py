"""A page that was not drawn but scanned, photographed or captured: a PNG, a JPEG or a PIL image as a `Page`.

A page is 1 bit deep, in the store, in its hash and in what proj was trained on, so a picture becomes paper and ink: it
is made grey and cut at Otsu's threshold (IEEE Trans. SMC 9(1), 1979, 62-66). Shades and colours are lost. It is shrunk
to the page where it is larger, never enlarged, and lies in the upper left corner, where text begins. Needs the extra
`fonts`, for Pillow.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ocrmem.arguments import as_path
from ocrmem.errors import ConfigError, DataError, MissingInputError
from ocrmem.rendering.page import JPEG_SIGNATURE, PNG_SIGNATURE, Page

VERSION = "picture-1"  # of the steps from picture to bits, in place of an atlas's version in a page's hash
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # greys of 0 to 65535
_AGAIN = "Save it again as PNG or JPEG"


@dataclass(frozen=True)
class Picture:
    """A picture as a page.

    Attributes:
        name: what errors and reports call it.
        page: of the size that was asked for.
        told: what was done to it, for a person.
    """

    name: str
    page: Page
    told: str


def read_picture(source: str | Path | Image.Image, size: int) -> Picture:
    """Return a picture as a page.

    Args:
        source: a PNG or JPEG file, or a PIL image.
        size: side of the page in px, a multiple of 8.

    Raises:
        MissingInputError: there is no such file.
        ConfigError: it cannot be read, or is no path.
        DataError: as `open_picture` and `page_of`.
    """
    if isinstance(source, Image.Image):
        return page_of(source, "picture", size)
    path = as_path("read_picture", source)
    name = str(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise MissingInputError.of(name, "is not there", "Name a PNG or JPEG file") from None
    except OSError as error:
        raise ConfigError.of(name, f"cannot be read ({error.strerror})", "Name a readable PNG or JPEG file") from None
    return page_of(open_picture(content, name), name, size)


def open_picture(content: bytes, name: str) -> Image.Image:
    """Decode a PNG or JPEG file.

    Args:
        name: what errors call it.

    Raises:
        DataError: it is none, damaged, or too large (89 million px, as Pillow has it).
    """
    if not content:
        raise DataError.of(name, "is empty", _AGAIN)
    if not content.startswith((PNG_SIGNATURE, JPEG_SIGNATURE)):
        raise DataError.of(name, "is neither PNG nor JPEG", "Convert it to PNG; of a PDF: pdftoppm -png FILE page")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
            image.load()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            remedy = "Scan it at a lower resolution, or scale it down"
            raise DataError.of(name, f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels", remedy) from None
        except UnidentifiedImageError:
            raise DataError.of(name, "is damaged: its header cannot be read", _AGAIN) from None
        # What Pillow raises depends on the format and on where the damage is.
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise DataError.of(name, f"is damaged ({error})", _AGAIN) from None
    return image


def page_of(image: Image.Image, name: str, size: int) -> Picture:
    """Return an image as a page.

    Its orientation (EXIF) is applied, what is transparent becomes paper, and where most of it is dark, as on a dark
    screen, the light part is the ink.

    Args:
        image: of any mode but floating point.
        name: what errors call it.
        size: as in `read_picture`.

    Raises:
        DataError: it is in floating point, or of one shade.
    """
    grey = _grey(ImageOps.exif_transpose(image), name)
    done = [f"{grey.width} x {grey.height} px"]
    scale = min(size / grey.width, size / grey.height)
    if scale < 1:
        shrunk = (max(round(grey.width * scale), 1), max(round(grey.height * scale), 1))
        grey = grey.resize(shrunk, Image.Resampling.LANCZOS)
        done.append(f"shrunk to {grey.width} x {grey.height}")
    if grey.size != (size, size):
        done.append(f"on a page of {size} px")
    shades = np.asarray(grey)
    if shades.min() == shades.max():
        raise DataError.of(name, "is of one shade: nothing is on it", "Give a page on which something is written")
    threshold = _otsu(shades)
    dark = shades <= threshold
    if 2 * dark.sum() > dark.size:
        dark = ~dark
        done.append(f"mostly dark, so ink where the grey is over {threshold} of 255")
    else:
        done.append(f"ink where the grey is {threshold} of 255 or less")
    ink = np.zeros((size, size), bool)
    ink[: dark.shape[0], : dark.shape[1]] = dark
    return Picture(name, Page(np.packbits(ink, axis=1), VERSION), ", ".join(done))


def _grey(image: Image.Image, name: str) -> Image.Image:
    """Return a picture in mode L, on white paper where it is transparent."""
    if image.mode in _DEEP:
        return Image.fromarray((np.asarray(image).clip(0, 0xFFFF) // 257).astype(np.uint8))
    if image.mode == "F":
        raise DataError.of(name, "has pixels in floating point, whose black and white nobody says", _AGAIN)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB").convert("L")  # by way of RGB, since CMYK and LAB have no other


def _otsu(shades: np.ndarray) -> int:
    """Return the grey at which two classes are the furthest apart; the darker one ends with it.

    Args:
        shades: uint8, at least two different ones.
    """
    counts = np.bincount(shades.reshape(-1), minlength=256)
    below, sums = counts.cumsum().astype(np.float64), (counts * np.arange(256)).cumsum()
    classes = below * (shades.size - below)
    apart = (sums[-1] * below - shades.size * sums) ** 2
    return int(np.divide(apart, classes, out=np.zeros(256), where=classes > 0).argmax())
