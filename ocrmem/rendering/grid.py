"""Text to a grid: rows of cell numbers, and the characters of the source that each row shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ocrmem.config import RenderSection
from ocrmem.rendering.atlas import Atlas
from ocrmem.rendering.geometry import Geometry
from ocrmem.rendering.layout import Rows, wrap
from ocrmem.rendering.text_units import Units, to_units
from ocrmem.rendering.token_boxes import fill_boxes

PIECE = 1 << 14  # characters laid out at a time


class Piece(NamedTuple):
    """A part of a text, laid out: its units in rows, and the index of its first character in the text."""

    units: Units
    rows: Rows
    offset: int


class Grid(NamedTuple):
    """A text laid out.

    Attributes:
        cells: int32 [rows, columns]; the number of the cell that stands at each place.
        spans: int64 [rows, 2]; start and end in the source of every row.
        escaped: characters drawn as escapes.
        open: units of the last row or box, where newlines flow: what follows the text may change it, and nothing
            before it.
    """

    cells: np.ndarray
    spans: np.ndarray
    escaped: int
    open: Units | None


def lay_out(text: str, settings: RenderSection, atlas: Atlas, begun: Units | None = None) -> Grid:
    """Lay out a text piece by piece.

    Args:
        text: any str.
        settings: sizes, newlines and tab width.
        atlas: of `load_atlas(settings.atlas)`.
        begun: `Grid.open` of the text that this one follows. Its row is laid out again in front, so spans begin
            ``begun.length`` characters before the text.
    """
    columns = Geometry.of(settings).columns
    grids: list[np.ndarray] = []
    spans: list[np.ndarray] = []
    escaped, units = 0, None
    for units, rows, offset in pieces(text, settings, atlas, begun):
        grids.append(_cells(units, rows, columns, atlas))
        spans.append(source_spans(units, rows.starts) + offset)
        escaped += units.escaped
    opened = units if settings.newlines == "flow" else None
    if len(grids) == 1:
        return Grid(grids[0], spans[0], escaped, opened)
    nothing = np.empty((0, columns), np.int32), np.empty((0, 2), np.int64)
    return Grid(np.concatenate((nothing[0], *grids)), np.concatenate((nothing[1], *spans)), escaped, opened)


def pieces(text: str, settings: RenderSection, atlas: Atlas, begun: Units | None = None) -> Iterator[Piece]:
    """Yield a text in pieces of whole rows.

    A piece ends behind a newline. Where that breaks the line, layout starts afresh; where newlines flow, the last row
    or box of a piece is laid out again at the head of the next one, and the last piece is the last row or box alone.

    Args:
        text, settings, atlas, begun: as for `lay_out`.
    """
    geometry = Geometry.of(settings)

    def rows_of(units: Units) -> Rows:
        if settings.align == "token":
            return fill_boxes(units, geometry.columns, geometry.box_rows)
        return wrap(units, geometry.columns)

    offset = 0 if begun is None else -begun.length
    for piece in _cut(text):
        units = to_units(piece, atlas, settings.newlines, settings.tab_width)
        if settings.newlines == "break":
            yield Piece(units, rows_of(units), offset)
            offset += len(piece)
            continue
        if begun is not None:
            units = begun.followed_by(units)
        rows = rows_of(units)
        last = int(rows.starts[-1 - geometry.box_rows])
        begun = units.part(last, len(units.widths))
        final = replace(units.part(0, last), escaped=units.escaped)
        yield Piece(final, Rows(rows.starts[: -geometry.box_rows], rows.cells[: last + 1]), offset)
        offset += final.length
    if begun is not None:
        yield Piece(begun, rows_of(begun), offset)


def _cut(text: str) -> Iterator[str]:
    """Cut behind newlines, where layout starts afresh: arrays of a piece stay in the processor's cache."""
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + PIECE) + 1 or text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def source_spans(units: Units, starts: np.ndarray) -> np.ndarray:
    """Return the characters that runs of units show: int64 [n, 2], start and end, without a gap and to the end.

    Args:
        units: of a text.
        starts: int64 [n + 1]; run i is units starts[i] to starts[i + 1], the last entry is the number of units.
    """
    if units.origin is None:
        return np.stack((starts[:-1], starts[1:]), axis=1)
    edges = np.append(units.origin, units.length)[starts]
    ends = edges[1:].copy()
    # An escape that is cut belongs to both runs.
    some = np.flatnonzero(starts[1:] > starts[:-1])
    ends[some] = np.maximum(ends[some], units.origin[starts[some + 1] - 1] + 1)
    return np.stack((edges[:-1], ends), axis=1)


def _cells(units: Units, rows: Rows, columns: int, atlas: Atlas) -> np.ndarray:
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
