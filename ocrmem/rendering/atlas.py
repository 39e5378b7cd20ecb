"""The glyph atlas: every code point's cells, 8x16 px of 1 bit, so that drawing is copying.

The vendored atlas `data/unifont.npz` is made from GNU Unifont by scripts/build_atlas.py. Its cells divide the
64 px patch of DeepSeek-OCR's encoder, so no cell crosses the edge of a vision token.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from ocrmem.errors import DataError
from ocrmem.facts import CELL_HEIGHT
from ocrmem.rendering.line_breaking import CODE_POINTS, break_classes

UNIFONT = Path(__file__).parent / "data" / "unifont.npz"
_REBUILD = "Install ocrmem again, or run scripts/build_atlas.py"
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class AtlasData:
    """An atlas as it is stored: one entry a code point, in ascending order.

    Attributes:
        name: font and its version.
        code_points: uint32 [n].
        widths: uint8 [n]; cells of each, 1 or 2.
        marks: bool [n]; combining marks (zero advance in the font).
        cells: uint8 [sum(widths), 16]; 1 = ink, most significant bit leftmost.
    """

    name: str
    code_points: np.ndarray
    widths: np.ndarray
    marks: np.ndarray
    cells: np.ndarray

    @property
    def version(self) -> str:
        """Name plus the first 12 hex digits of a sha256 over the arrays, little-endian, in field order."""
        arrays = (self.code_points, self.widths, self.marks, self.cells)
        digest = hashlib.sha256()
        for array, kind in zip(arrays, ("<u4", "u1", "u1", "u1"), strict=True):
            digest.update(np.ascontiguousarray(array, kind).tobytes())
        return f"{self.name}-{digest.hexdigest()[:12]}"

    def to_bytes(self) -> bytes:
        """Return an .npz file without time stamps: the same arrays give the same bytes (with the same zlib)."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            arrays = {
                "name": np.frombuffer(self.name.encode("utf-8"), np.uint8),
                "code_points": self.code_points.astype("<u4"),
                "widths": self.widths.astype("u1"),
                "marks": self.marks.astype("u1"),
                "cells": self.cells.astype("u1"),
            }
            for name, array in arrays.items():
                member = io.BytesIO()
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
                entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.create_system = 3  # the same bytes from every operating system
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, member.getvalue(), compresslevel=9)
        return buffer.getvalue()

    @classmethod
    def read(cls, path: Path) -> AtlasData:
        """Read what `to_bytes` gave.

        Raises:
            DataError: the file is not there or is not such an atlas.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                data = cls(
                    name=stored["name"].tobytes().decode("utf-8"),
                    code_points=stored["code_points"],
                    widths=stored["widths"],
                    marks=stored["marks"].astype(bool),
                    cells=stored["cells"],
                )
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError.of(str(path), f"is not a glyph atlas ({error})", _REBUILD) from error
        if len(data.cells) != int(data.widths.sum()) or data.cells.shape[1:] != (CELL_HEIGHT,):
            raise DataError.of(str(path), "has cells that do not fit its widths", _REBUILD)
        return data


class Atlas:
    """Tables over all code points, and the cells.

    Attributes:
        version: what the cells are; part of every page's hash.
        width: uint8 [0x110000]; cells of the code point, 0 when it has no glyph.
        index: int32 [0x110000]; first cell of the code point, 0 when nothing is to be drawn (no glyph, or a
            space). A wide glyph's second cell follows.
        cells: uint8 [m, 16]; cell 0 is blank. 1 = ink, most significant bit leftmost.
    """

    def __init__(self, data: AtlasData) -> None:
        self.version = data.version
        self.width = np.zeros(CODE_POINTS, np.uint8)
        self.width[data.code_points] = data.widths
        first = np.concatenate(([0], np.cumsum(data.widths, dtype=np.int64)[:-1]))
        ink = np.add.reduceat(data.cells.any(axis=1).astype(np.int64), first) > 0
        self.index = np.zeros(CODE_POINTS, np.int32)
        self.index[data.code_points] = np.where(ink, first + 1, 0)
        self.cells = np.concatenate((np.zeros((1, CELL_HEIGHT), np.uint8), data.cells))
        self.marks = data.code_points[data.marks]

    @cached_property
    def break_class(self) -> np.ndarray:
        """uint8 [0x110000] of `ocrmem.rendering.line_breaking.Break`."""
        return break_classes(self.marks)

    def prepare(self, code_points: np.ndarray) -> None:
        """Make sure that these code points (uint32 [n], repeats allowed) have their entries; here they do."""


@cache
def unifont_data() -> AtlasData:
    """Read the vendored cells as stored."""
    return AtlasData.read(UNIFONT)
