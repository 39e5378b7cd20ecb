"""Units to rows: greedy wrapping that never looks past the first unit that does not fit.

Every row but the last is therefore final: text written later changes no row above the last one, and so no
page but the last. A text that ends with a newline (as every transcript does) has only final rows.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from ocrmem.rendering.line_breaking import Break, may_break, may_split, pairs
from ocrmem.rendering.text_units import Units

_SPACE, _NEWLINE = int(Break.SPACE), int(Break.NEWLINE)


@dataclass(frozen=True)
class Rows:
    """Starts of rows, as indices into the units.

    Attributes:
        starts: int64 [r + 1]; row i holds units starts[i] to starts[i + 1], the last entry is the number of
            units. Spaces that hang over the margin and the newline are units of the row they end.
        cells: int64 [n + 1]; cells in front of each unit, over the whole text.
    """

    starts: np.ndarray
    cells: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1


def wrap(units: Units, columns: int) -> Rows:
    """Break units into rows of at most ``columns`` cells (hanging spaces not counted).

    Args:
        units: what is to be laid out.
        columns: cells of a row, at least 2.
    """
    n = len(units.widths)
    begins, ends, cells = lines_of(units)
    long = np.flatnonzero(cells[ends] - cells[begins] > columns)
    if not len(long):
        return Rows(np.append(begins, n), cells)
    inner = _inner_starts(units, cells, begins[long].tolist(), ends[long].tolist(), columns)
    # A row start inside a line is never the start of a line: the two sets are disjoint.
    starts = np.concatenate((begins, np.array(inner, np.int64)))
    starts.sort()
    return Rows(np.append(starts, n), cells)


def lines_of(units: Units) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the start of each line and the end, its newline included, and the cells in front of each unit (`Rows`)."""
    n = len(units.widths)
    cells = np.zeros(n + 1, np.int64)
    np.cumsum(units.widths, out=cells[1:])
    lines = np.flatnonzero(units.classes == _NEWLINE) + 1
    ends = lines if len(lines) and lines[-1] == n else np.append(lines, n) if n else lines
    begins = np.concatenate((np.zeros(1, np.int64), ends[:-1])) if n else ends
    return begins, ends, cells


def _inner_starts(units: Units, cells: np.ndarray, begins: list[int], ends: list[int], columns: int) -> list[int]:
    """Return the starts of the second and later rows of lines longer than a row.

    Args:
        units: of the whole text.
        cells: as in `Rows`.
        begins: first unit of each of these lines.
        ends: one past the last unit of each, its newline included.
        columns: cells of a row.
    """
    first, last = begins[0], ends[-1]
    classes = units.classes[first:last]
    # Lists and bytes from here on: a row costs a few lookups, and theirs are ten times faster than an
    # array's. Where every unit is one cell, not even the list of cells is needed.
    kinds = classes.tobytes()
    narrow = int(units.widths[first:last].max()) == 1
    before = [] if narrow else cells[first : last + 1].tolist()
    breaks = may_break()[pairs(classes)].tobytes()  # 1 at i: a row may start at i + 1
    starts: list[int] = []
    for begin, end in zip(begins, ends, strict=True):
        row, stop = begin - first, end - first
        if kinds[stop - 1] == _NEWLINE:
            stop -= 1
        while (stop - row if narrow else before[stop] - before[row]) > columns:
            # The first unit that does not fit; a unit is one cell or two.
            over = row + columns
            if not narrow:
                over = bisect_right(before, before[row] + columns, row + columns // 2, min(over + 1, stop)) - 1
            if kinds[over] == _SPACE:
                row = over + 1
                while row < stop and kinds[row] == _SPACE:
                    row += 1
                if row == stop:
                    break
            else:
                place = breaks.rfind(1, row, over) + 1
                row = place or row + _split(classes[row : over + 1])
            starts.append(row + first)
    return starts


def _split(word: np.ndarray) -> int:
    """Return where to cut a word longer than a row: as late as clusters and escapes stay whole.

    Args:
        word: uint8 [k]; classes of what fits, and of the unit behind it.
    """
    allowed = np.flatnonzero(may_split()[pairs(word)])
    return int(allowed[-1]) + 1 if len(allowed) else len(word) - 1
