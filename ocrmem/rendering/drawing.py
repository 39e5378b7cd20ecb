"""Text to pages: lay out, then copy cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ocrmem.config import RenderSection
from ocrmem.facts import CELL_HEIGHT, CELL_WIDTH
from ocrmem.rendering.atlas import Atlas
from ocrmem.rendering.geometry import Geometry
from ocrmem.rendering.layout import Rows, wrap
from ocrmem.rendering.page import Page
from ocrmem.rendering.text_units import Units, to_units

PIECE = 1 << 14  # characters laid out at a time


class RowSpan(NamedTuple):
    """The characters of the source that a row of a page shows: text[start:end].

    Spans follow each other without a gap and cover the text; they overlap only where the escape of one
    character is longer than a row.
    """

    page: int
    row: int
    start: int
    end: int


@dataclass(frozen=True)
class Rendering:
    """The pages of a text.

    Attributes:
        pages: all of them, oldest first; `render.max_pages` is not applied here.
        spans: int64 [rows, 2]; start and end in the source of every row, page after page.
        rows_per_page: rows of a full page.
        escaped: characters drawn as escapes.
    """

    pages: list[Page]
    spans: np.ndarray
    rows_per_page: int
    escaped: int

    @cached_property
    def rows(self) -> list[RowSpan]:
        """The spans with their page and row."""
        return [
            RowSpan(*divmod(i, self.rows_per_page), start, end) for i, (start, end) in enumerate(self.spans.tolist())
        ]


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
    return Rendering(
        pages=list(paginate(grid, geometry, atlas)), spans=spans, rows_per_page=geometry.rows, escaped=escaped
    )


def lay_out(text: str, settings: RenderSection, atlas: Atlas) -> tuple[np.ndarray, np.ndarray, int]:
    """Lay out a text piece by piece: int32 [rows, columns] of cell numbers; spans and escapes as in `Rendering`.

    Layout starts afresh behind a newline that breaks the line.
    """
    columns = settings.page_size // CELL_WIDTH
    grids: list[np.ndarray] = []
    spans: list[np.ndarray] = []
    escaped = offset = 0
    for piece in _pieces(text) if settings.newlines == "break" else (text,):
        units = to_units(piece, atlas, settings.newlines, settings.tab_width)
        rows = wrap(units, columns)
        grids.append(_grid(units, rows, columns, atlas))
        spans.append(_spans(units, rows) + offset)
        escaped += units.escaped
        offset += len(piece)
    if len(grids) == 1:
        return grids[0], spans[0], escaped
    nothing = np.empty((0, columns), np.int32), np.empty((0, 2), np.int64)
    return np.concatenate((nothing[0], *grids)), np.concatenate((nothing[1], *spans)), escaped


def _pieces(text: str) -> Iterator[str]:
    """Cut behind newlines, where layout starts afresh: arrays of a piece stay in the processor's cache."""
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + PIECE) + 1 or text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def _spans(units: Units, rows: Rows) -> np.ndarray:
    spans = np.empty((len(rows), 2), np.int64)
    if not len(rows):
        return spans
    if units.origin is None:
        spans[:, 0], spans[:, 1] = rows.starts[:-1], rows.starts[1:]
        return spans
    spans[:, 0] = units.origin[rows.starts[:-1]]
    spans[:-1, 1] = spans[1:, 0]
    spans[-1, 1] = units.length
    # An escape cut by the margin belongs to both rows.
    np.maximum(spans[:, 1], units.origin[rows.starts[1:] - 1] + 1, out=spans[:, 1])
    return spans


def _grid(units: Units, rows: Rows, columns: int, atlas: Atlas) -> np.ndarray:
    """Return int32 [rows, columns]: the number of the cell that stands at each place."""
    grid = np.zeros(len(rows) * columns, np.int32)
    corner = np.arange(len(rows)) * columns - rows.cells[rows.starts[:-1]]
    places = rows.cells[:-1] + np.repeat(corner, rows.starts[1:] - rows.starts[:-1])
    glyphs = atlas.index[units.code_points]
    # Spaces have glyph 0, so what hangs over the margin is not drawn and cannot reach the next row.
    drawn = np.flatnonzero(glyphs)
    places, glyphs = places[drawn], glyphs[drawn]
    grid[places] = glyphs
    wide = np.flatnonzero(units.widths[drawn] == 2)
    if len(wide):
        grid[places[wide] + 1] = glyphs[wide] + 1
    return grid.reshape(len(rows), columns)


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
    size, height = geometry.page_size, geometry.line_height
    bits = np.zeros((size, size // 8), np.uint8) if below is None else below.bits.copy()
    lines = bits[first * height : (first + len(grid)) * height].reshape(len(grid), height, -1)
    drawn = np.take(atlas.cells, grid, axis=0).transpose(0, 2, 1)
    lines[:, geometry.top : geometry.top + CELL_HEIGHT] = drawn
    return Page(bits, atlas.version)
