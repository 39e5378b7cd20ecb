"""Units to the rows of token boxes: what lies under one vision token is one piece of the text.

Boxes are filled in reading order, a word that would straddle two of them starts the next one. Where a box ends
depends on the first unit that does not fit and on nothing behind it, so every box but the last is final.
"""

from __future__ import annotations

import numpy as np

from ocrmem.rendering.layout import Rows, lines_of
from ocrmem.rendering.line_breaking import Break, may_break, may_cut, pairs
from ocrmem.rendering.text_units import Units

_SPACE, _NEWLINE = int(Break.SPACE), int(Break.NEWLINE)


def fill_boxes(units: Units, columns: int, box_rows: int) -> Rows:
    """Fill boxes, each line from a new one; return all rows of all boxes, those without units included.

    Inside a box text runs from row to row and is cut wherever a row is full; only clusters, wide glyphs and escapes
    stay whole. Spaces that do not fit, and the newline, hang: they are units of the last row that holds any.

    Args:
        units: what is to be laid out.
        columns: cells of a box's row, at least 2.
        box_rows: rows of a box.
    """
    n = len(units.widths)
    begins, ends, cells = lines_of(units)
    neighbours = pairs(units.classes)
    next_row = _next_rows(units, cells, neighbours, columns)
    room = columns if next_row is not None else columns * box_rows
    long = np.flatnonzero(cells[ends] - cells[begins] > room)
    inner = []
    if len(long):
        no_room = None if next_row is None else _repeated(next_row, box_rows)
        inner = _inner_starts(units, neighbours, no_room, room, begins[long].tolist(), ends[long].tolist())
    boxes = np.concatenate((begins, np.array(inner, np.int64)))
    boxes.sort()

    if next_row is None:
        starts = boxes[:, None] + columns * np.arange(box_rows + 1)
    else:
        starts = np.stack([boxes, *(_repeated(next_row, row)[boxes] for row in range(1, box_rows + 1))], axis=1)
    # What hangs starts no row, nor does what the next box holds.
    after = np.append(boxes[1:], n)[:, None] if n else starts[:, :1]
    stop = np.minimum(starts[:, -1:], after - (units.classes[after - 1] == _NEWLINE))
    starts[:, 1:] = np.where(starts[:, 1:] < stop, starts[:, 1:], after)
    return Rows(np.append(starts[:, :-1], n), cells)


def _repeated(next_row: np.ndarray, rows: int) -> np.ndarray:
    """Return the start of the row that many rows below one that starts at a unit: int64 [n + 1]."""
    start = next_row
    for _ in range(rows - 1):
        start = next_row[start]
    return start


def _next_rows(units: Units, cells: np.ndarray, neighbours: np.ndarray, columns: int) -> np.ndarray | None:
    """Return the start of the row below one that starts at a unit, as if there were no lines: int64 [n + 1].

    None where each unit is one cell and may end a row, so that a row is always ``columns`` units.

    Args:
        units: of the whole text.
        cells: as in `Rows`.
        neighbours: their classes, as `pairs` gives them.
        columns: cells of a row.
    """
    n = len(units.widths)
    allowed = may_cut()[neighbours]
    if not n or (units.widths.max() == 1 and allowed.all()):
        return None
    index = np.arange(n + 1)
    # The unit at each cell, and so the one at the first cell that a row has no room for.
    at_cell = np.append(np.repeat(index[:-1], units.widths), np.full(columns, n))
    over = at_cell[np.minimum(cells + columns, len(at_cell) - 1)]
    place = np.maximum.accumulate(np.where(np.concatenate(([True], allowed, [True])), index, 0))[over]
    return np.where(place > index, place, over)


def _inner_starts(
    units: Units, neighbours: np.ndarray, no_room: np.ndarray | None, room: int, begins: list[int], ends: list[int]
) -> list[int]:
    """Return the starts of the second and later boxes of lines that may be longer than a box.

    Args:
        units: of the whole text.
        neighbours: their classes, as `pairs` gives them.
        no_room: int64 [n + 1]; the first unit that has no room in a box which starts at a unit.
        room: units of a box, where ``no_room`` is None.
        begins: first unit of each of these lines.
        ends: one past the last unit of each, its newline included.
    """
    # Bytes and a view, for the reason that `ocrmem.rendering.layout` gives.
    kinds = units.classes.tobytes()
    last_break = may_break()[neighbours].tobytes().rfind  # 1 at i: a box may start at i + 1
    view = None if no_room is None else no_room.data
    starts: list[int] = []
    for box, end in zip(begins, ends, strict=True):
        stop = end - (kinds[end - 1] == _NEWLINE)
        while (over := box + room if view is None else view[box]) < stop:
            if kinds[over] == _SPACE:
                box = over + 1
                while box < stop and kinds[box] == _SPACE:
                    box += 1
                if box == stop:
                    break
            else:
                box = last_break(1, box, over) + 1 or over
            starts.append(box)
    return starts
