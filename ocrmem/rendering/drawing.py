"""Text to pages: lay out, then copy cells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ocrmem.config import RenderSection
from ocrmem.facts import CELL_HEIGHT
from ocrmem.rendering.atlas import Atlas
from ocrmem.rendering.geometry import Geometry
from ocrmem.rendering.grid import lay_out
from ocrmem.rendering.page import Page


class RowSpan(NamedTuple):
    """The characters of the source that a row shows: text[start:end]. It stands on a line of a page, from a column on.

    Spans follow each other without a gap and cover the text; they overlap only where the escape of one
    character is longer than a row.
    """

    page: int
    row: int
    column: int
    start: int
    end: int


@dataclass(frozen=True)
class Rendering:
    """The pages of a text.

    Attributes:
        pages: all of them, oldest first; `render.max_pages` is not applied here.
        spans: int64 [rows, 2]; start and end in the source of every row, page after page, box after box; nothing
            (start = end) for rows that a box leaves empty.
        geometry: of the pages.
        escaped: characters drawn as escapes.
    """

    pages: list[Page]
    spans: np.ndarray
    geometry: Geometry
    escaped: int

    @cached_property
    def rows(self) -> list[RowSpan]:
        """The spans of the rows that show something, with their places."""
        held = np.flatnonzero(self.spans[:, 0] < self.spans[:, 1])
        places = np.stack(self.geometry.places(held), axis=1)
        return [RowSpan(*row) for row in np.hstack((places, self.spans[held])).tolist()]


def render_text(text: str, settings: RenderSection, atlas: Atlas) -> Rendering:
    """Draw a text on as many pages as it needs; none for the empty text.

    Args:
        text: any str; what has no glyph becomes a visible escape.
        settings: sizes, newlines and tab width.
        atlas: of `load_atlas(settings.atlas)`.

    Raises:
        ConfigError: the sizes do not fit each other.
    """
    geometry = Geometry.of(settings)
    grid = lay_out(text, settings, atlas)
    starts = range(0, len(grid.cells), geometry.rows)
    pages = [draw_page(grid.cells[start : start + geometry.rows], geometry, atlas) for start in starts]
    return Rendering(pages, grid.spans, geometry, grid.escaped)


def draw_page(cells: np.ndarray, geometry: Geometry, atlas: Atlas) -> Page:
    """Draw the rows of a page, at most as many as it has; where some are missing it stays blank.

    Args:
        cells: int32 [rows, columns], of `lay_out`.
    """
    size, height, across, box_rows = geometry.page_size, geometry.line_height, geometry.across, geometry.box_rows
    bits = np.zeros((size, size // 8), np.uint8)
    missing = -len(cells) % (across * box_rows)  # boxes stand side by side in bands of lines
    if missing:
        cells = np.pad(cells, ((0, missing), (0, 0)))
    cells = cells.reshape(-1, across, box_rows, geometry.columns).swapaxes(1, 2).reshape(-1, across * geometry.columns)
    lines = bits[: len(cells) * height].reshape(len(cells), height, -1)
    lines[:, geometry.top : geometry.top + CELL_HEIGHT] = np.take(atlas.cells, cells, axis=0).swapaxes(1, 2)
    return Page(bits, atlas.version)
