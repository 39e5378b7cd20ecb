"""Cells from a TrueType or OpenType font, in front of Unifont's.

A glyph is rasterised when a text first needs it. What the font lacks, or draws larger than two cells, comes
from Unifont. Needs the extra `fonts`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont, TTLibError
from PIL import ImageFont, features

from ocrmem.errors import ConfigError
from ocrmem.facts import CELL_HEIGHT, CELL_WIDTH
from ocrmem.files import sha256_file
from ocrmem.rendering.atlas import Atlas, unifont_data
from ocrmem.rendering.line_breaking import CODE_POINTS
from ocrmem.rendering.rasterise import cells_of, has_own_cell

_LARGEST, _SMALLEST = 20, 6  # px
_PROBE = "0MÁgj|{}"  # as high and as low as ordinary text reaches


class TrueTypeAtlas(Atlas):
    """An atlas whose cells are rasterised from a font file on demand, thresholded to 1 bit.

    The version holds the font file's sha256 and the FreeType version, since hinting differs between FreeType
    builds.

    Args:
        path: a .ttf, .otf or .ttc file (its first face); monospaced fonts look best.

    Raises:
        ConfigError: the file is missing or not a font, or its letters do not fit a cell at any size.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(unifont_data())
        place = f"render.atlas: {path}"
        if not path.is_file():
            raise ConfigError.of(place, "is not there", 'Name an existing font file, or "unifont"')
        try:
            with TTFont(path, lazy=True, fontNumber=0) as table:
                self._has = np.zeros(CODE_POINTS, bool)
                self._has[[c for c in table.getBestCmap() or () if has_own_cell(c)]] = True
            self._font, self._baseline = _fit(path)
        except (TTLibError, OSError, ValueError, KeyError) as error:
            raise ConfigError.of(
                place, f"is not a usable font ({error})", "Use a monospaced .ttf or .otf file"
            ) from error
        self._done = np.zeros(CODE_POINTS, bool)
        freetype = features.version("freetype2")
        self.version = f"font-{sha256_file(path)}-freetype-{freetype}-over-{self.version}"

    def prepare(self, code_points: np.ndarray) -> None:
        """Rasterise those of these code points that the font has and no text needed before."""
        new = np.unique(code_points[~self._done[code_points]])
        if not len(new):
            return
        self._done[new] = True
        added, count = [self.cells], len(self.cells)
        for code_point in new[self._has[new]].tolist():
            character = chr(code_point)
            advance = round(self._font.getlength(character))
            cells = cells_of(self._font, character, advance, self._baseline, shift_lines=True)
            # No ink where the font should have some is a hole in the font; blank on purpose is blank in
            # Unifont as well.
            if cells is None or not cells.any():
                continue
            self.width[code_point] = len(cells)
            self.index[code_point] = count
            added.append(cells)
            count += len(cells)
        self.cells = np.concatenate(added)


def _fit(path: Path) -> tuple[ImageFont.FreeTypeFont, int]:
    """Return the font at the largest size whose letters fit a half-width cell, and its baseline in px."""
    for size in range(_LARGEST, _SMALLEST - 1, -1):
        font = ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
        _, top, _, bottom = font.getbbox(_PROBE, mode="1", anchor="ls")
        height = round(bottom - top)
        if font.getlength("0") <= CELL_WIDTH and height <= CELL_HEIGHT:
            return font, (CELL_HEIGHT - height) // 2 - round(top)
    raise ValueError(f"its letters do not fit {CELL_WIDTH}x{CELL_HEIGHT} px at {_SMALLEST} px or more")
