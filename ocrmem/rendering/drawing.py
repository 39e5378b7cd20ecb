"""Text to pages: lay out, then copy cells."""

from __future__ import annotations

from collections.abc import Iterator
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
    grid, spans, escaped = lay_out(text, settings, atlas)
    return Rendering(list(paginate(grid, geometry, atlas)), spans, geometry, escaped)


def paginate(
    grid: np.ndarray, geometry: Geometry, atlas: Atlas, begun: Page | None = None, filled: int = 0
) -> Iterator[Page]:
    """Yield rows, as `lay_out` gives them, as pages; the last one may be partly filled.

    Args:
        begun: a page on which the rows continue; None: a blank one.
        filled: rows of ``begun``.
    """
    while len(grid):
        room = geometry.rows - filled
        yield _blit(grid[:room], geometry, atlas, begun, filled)
        grid, begun, filled = grid[room:], None, 0


def _blit(grid: np.ndarray, geometry: Geometry, atlas: Atlas, below: Page | None, first: int) -> Page:
    """Draw int32 [rows, columns] of cell numbers on a page, from row ``first`` on."""
    size, height, across, box_rows = geometry.page_size, geometry.line_height, geometry.across, geometry.box_rows
    bits = np.zeros((size, size // 8), np.uint8) if below is None else below.bits.copy()
    band, before = divmod(first, across * box_rows)  # boxes stand side by side in bands of lines
    after = -(before + len(grid)) % (across * box_rows)
    if before or after:
        grid = np.pad(grid, ((before, after), (0, 0)))
    grid = grid.reshape(-1, across, box_rows, geometry.columns).swapaxes(1, 2).reshape(-1, across * geometry.columns)
    lines = bits[band * box_rows * height :][: len(grid) * height].reshape(len(grid), height, -1)
    cells = lines[:, geometry.top : geometry.top + CELL_HEIGHT]
    drawn = np.take(atlas.cells, grid, axis=0).swapaxes(1, 2)
    if before:
        cells |= drawn  # beside the boxes that are there
    else:
        cells[:] = drawn
    return Page(bits, atlas.version)
