"""One glyph of a font as 8x16 pixel cells of 1 bit. Needs Pillow (the extra `fonts`)."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ocrmem.facts import CELL_HEIGHT, CELL_WIDTH

_MARGIN = 32  # px kept free around the origin, so that ink left of it or above the cell is seen


def has_own_cell(code_point: int) -> bool:
    """Return False for newlines and for what any font escapes: controls, surrogates, private use."""
    control = code_point < 0x20 or 0x7F <= code_point < 0xA0
    private = 0xD800 <= code_point < 0xF900 or code_point >= 0xF0000
    return not control and not private and code_point not in (0x2028, 0x2029)


def cells_of(
    font: ImageFont.FreeTypeFont, character: str, advance: int, baseline: int, *, shift_lines: bool = False
) -> np.ndarray | None:
    """Rasterise one character.

    The glyph keeps its place in the cell where it can. Combining marks, which fonts draw left of an advance
    of zero, are moved into a cell of their own; ink that leaves the advance gets a second cell.

    Args:
        font: the font, at the size to draw.
        character: one code point.
        advance: px; what the font says, rounded. 0 for combining marks.
        baseline: px from the top of the cell down to the baseline.
        shift_lines: move a glyph that is higher or lower than the cell into it.

    Returns:
        uint8 [1 or 2, 16], a row of 8 pixels a byte, 1 = ink, most significant bit leftmost; None when the
        ink does not fit two cells.
    """
    image = Image.new("1", (3 * _MARGIN, 3 * _MARGIN), 0)
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"
    draw.text((_MARGIN, _MARGIN + baseline), character, fill=1, font=font, anchor="ls")
    box = image.getbbox()
    if box is None:
        return np.zeros((2 if advance > CELL_WIDTH else 1, CELL_HEIGHT), np.uint8)
    left, right = box[0] - _MARGIN, box[2] - _MARGIN
    top, bottom = box[1] - _MARGIN, box[3] - _MARGIN
    wide = 2 if max(right - left, advance) > CELL_WIDTH else 1
    x = _into(left, right, wide * CELL_WIDTH, advance)
    y = _into(top, bottom, CELL_HEIGHT, CELL_HEIGHT)
    if x is None or y is None or (y != 0 and not shift_lines):
        return None
    corner = (_MARGIN - x, _MARGIN - y)
    cell = image.crop((*corner, corner[0] + wide * CELL_WIDTH, corner[1] + CELL_HEIGHT))
    return np.frombuffer(cell.tobytes(), np.uint8).reshape(CELL_HEIGHT, wide).T.copy()


def _into(low: int, high: int, size: int, advance: int) -> int | None:
    """Return how far to move the span [low, high) so that it lies in [0, size); None when it is larger."""
    if high - low > size:
        return None
    if low >= 0 and high <= size:
        return 0
    if advance == 0 and size + low >= 0 and high <= 0:
        return size  # a mark over the previous cell: keep where in that cell it sits
    return -low if low < 0 else size - high
