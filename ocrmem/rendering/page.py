"""One page: packed bits, and the forms that others need of it."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from ocrmem.errors import DataError

PNG_SIGNATURE, JPEG_SIGNATURE = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_BAND = 64  # rows of a page that are written together: still in the cache when they are copied to the other channels


@dataclass(frozen=True, eq=False)
class Page:
    """A square page of 1-bit pixels.

    Attributes:
        bits: uint8 [S, S / 8]; 1 = ink, most significant bit leftmost.
        atlas_version: which cells it was drawn from.

    Raises:
        DataError: the bits are not those of a square page.
    """

    bits: np.ndarray
    atlas_version: str

    def __post_init__(self) -> None:
        shape = self.bits.shape
        if self.bits.dtype != np.uint8 or len(shape) != 2 or shape[0] != 8 * shape[1] or not shape[1]:
            raise DataError.of(
                "page",
                f"bits are {self.bits.dtype} {list(shape)}, not uint8 [S, S / 8]",
                "Render the dataset again (`ocrmem render`)",
            )

    @classmethod
    def from_bytes(cls, packed: bytes, size: int, atlas_version: str) -> Page:
        """Return the page whose `to_bytes` gave ``packed``.

        Raises:
            DataError: the number of bytes is not that of a page of ``size`` px.
        """
        if size <= 0 or size % 8 or len(packed) != size * size // 8:
            raise DataError.of(
                "page", f"{len(packed)} bytes are not a page of {size} px", "Render the dataset again (`ocrmem render`)"
            )
        return cls(np.frombuffer(packed, np.uint8).reshape(size, size // 8), atlas_version)

    def to_bytes(self) -> bytes:
        """Return the packed rows, top to bottom: S * S / 8 bytes."""
        return self.bits.tobytes()

    @property
    def size(self) -> int:
        """Side in px."""
        return self.bits.shape[0]

    @cached_property
    def hash(self) -> str:
        """Hex sha256 over the atlas version (UTF-8), a zero byte and the packed rows."""
        digest = hashlib.sha256(self.atlas_version.encode("utf-8") + b"\0")
        digest.update(np.ascontiguousarray(self.bits).data)
        return digest.hexdigest()

    @property
    def ink_pixels(self) -> int:
        """Pixels that are ink."""
        packed = np.ascontiguousarray(self.bits).reshape(-1)
        # S * S / 8 bytes are whole words of 8: counted as words, an eighth of the numbers is left to add up.
        return int(np.bitwise_count(packed.view(np.uint64)).sum(dtype=np.int64))

    def ink_mask(self, token_size: int) -> np.ndarray:
        """Return which patches hold ink.

        Args:
            token_size: px of one vision token's patch.

        Returns:
            bool [(S / token_size) ** 2], row by row.

        Raises:
            DataError: the page does not divide into such patches.
        """
        if token_size <= 0 or token_size % 8 or self.size % token_size:
            raise DataError.of(
                "page",
                f"{self.size} px do not divide into tokens of {token_size} px",
                "Use the render.token_size the dataset was rendered for",
            )
        side = self.size // token_size
        lines = np.bitwise_or.reduce(self.bits.reshape(side, token_size, -1), axis=1)
        return (lines.reshape(side, side, token_size // 8) != 0).any(axis=2).reshape(-1)

    def pixels(self, out: np.ndarray | None = None) -> np.ndarray:
        """Return float32 [3, S, S]: paper 1.0, ink -1.0, as ToTensor and Normalize(0.5, 0.5) make of the picture.

        Args:
            out: float32 [3, S, S] to write into, such as one page of a batch; None: a new array.
        """
        pixels = np.empty((3, self.size, self.size), np.float32) if out is None else out
        for top in range(0, self.size, _BAND):
            bits, (first, *others) = self.bits[top : top + _BAND], pixels[:, top : top + _BAND]
            # With mode "raise" numpy would fill a copy first; a byte cannot be out of range.
            np.take(_floats_of_a_byte(), bits, axis=0, out=first.reshape(*bits.shape, 8), mode="clip")
            for other in others:
                other[:] = first
        return pixels

    def png(self) -> bytes:
        """Return a 1-bit greyscale PNG, black on white (ISO/IEC 15948; bit depth 1, colour type 0, filter 0)."""
        lines = np.zeros((self.size, self.bits.shape[1] + 1), np.uint8)
        np.bitwise_not(self.bits, out=lines[:, 1:])
        header = struct.pack(">IIBBBBB", self.size, self.size, 1, 0, 0, 0, 0)
        body = zlib.compress(lines.tobytes(), 1)
        return PNG_SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def pixel_batch(pages: Sequence[Page]) -> np.ndarray:
    """Return `Page.pixels` of pages of one size, each written once, in its place: float32 [P, 3, S, S].

    Raises:
        DataError: pages of different sizes.
    """
    require_one_size(pages)
    batch = np.empty((len(pages), 3, pages[0].size, pages[0].size), np.float32)
    for place, page in zip(batch, pages, strict=True):
        page.pixels(place)
    return batch


def require_one_size(pages: Sequence[Page]) -> None:
    """Raise `DataError` unless there are pages, all of one size."""
    if len({page.size for page in pages}) != 1:
        sizes = ", ".join(str(size) for size in sorted({page.size for page in pages}))
        raise DataError.of("pages", f"have the sizes {sizes or 'of none'}", "Give pages of one size together")


@cache
def _floats_of_a_byte() -> np.ndarray:
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    return 1.0 - 2.0 * bits.astype(np.float32)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
