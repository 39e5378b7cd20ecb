"""From text to units: what is drawn, in which cells, and from which character of the source.

A unit is one glyph. Most characters are one unit; a tab is as many spaces as reach the next tab stop, a
character without a glyph is the units of its escape ([U+20000]), and a line feed after a carriage return is
none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ocrmem.rendering.atlas import Atlas
from ocrmem.rendering.line_breaking import Break

NEWLINE_MARK = 0x21B5  # downwards arrow with corner leftwards
_CR, _LF, _SPACE = 0x0D, 0x0A, 0x20
# Plain numbers: in a short text, reading a member of an enumeration takes as long as the array operation on it.
_NEWLINE, _TAB = int(Break.NEWLINE), int(Break.TAB)
_HEX = np.frombuffer(b"0123456789ABCDEF", np.uint8).astype(np.uint32)
_ESCAPE_HEAD = np.frombuffer(b"[U+", np.uint8).astype(np.uint32)


@dataclass(frozen=True)
class Units:
    """The units of a text, in order.

    Attributes:
        code_points: uint32 [n]; what is drawn.
        widths: uint8 [n]; cells. 0 for a newline.
        classes: uint8 [n] of `Break`.
        origin: int64 [n] index of the source character, or None where unit i is character i.
        length: characters of the source.
        escaped: characters that became escapes.
    """

    code_points: np.ndarray
    widths: np.ndarray
    classes: np.ndarray
    origin: np.ndarray | None
    length: int
    escaped: int

    def part(self, start: int, stop: int) -> Units:
        """Return units ``start`` to ``stop``; the first one's character is character 0. ``escaped`` stays behind."""
        kept = self.code_points[start:stop], self.widths[start:stop], self.classes[start:stop]
        if self.origin is None:
            return Units(*kept, None, stop - start, 0)
        first, end = np.append(self.origin, self.length)[[start, stop]].tolist()
        return Units(*kept, self.origin[start:stop] - first, end - first, 0)

    def followed_by(self, more: Units) -> Units:
        """Return these units and others, whose characters follow."""
        arrays = zip(self._arrays(), more._arrays(), strict=True)
        code_points, widths, classes, origin = (np.concatenate(pair) for pair in arrays)
        origin[len(self.widths) :] += self.length
        return Units(code_points, widths, classes, origin, self.length + more.length, self.escaped + more.escaped)

    def _arrays(self) -> tuple[np.ndarray, ...]:
        origin = np.arange(self.length) if self.origin is None else self.origin
        return self.code_points, self.widths, self.classes, origin


def code_points_of(text: str) -> np.ndarray:
    """Return uint32 [len(text)]; lone surrogates are kept as they are."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def to_units(text: str, atlas: Atlas, newlines: Literal["break", "flow"], tab_width: int) -> Units:
    """Normalise newlines, expand tabs, escape what has no glyph.

    Args:
        text: any str, lone surrogates included.
        atlas: gives widths and break classes.
        newlines: "break" keeps newlines; "flow" turns each into a visible mark, and escapes that mark where
            the text itself has it.
        tab_width: cells from one tab stop to the next, counted from the last newline.
    """
    code_points = code_points_of(text)
    atlas.prepare(code_points)
    widths = atlas.width[code_points]
    classes = atlas.break_class[code_points]
    newline = classes == _NEWLINE
    tab = classes == _TAB
    widths[newline | tab] = 0
    escape = (widths == 0) & ~newline & ~tab
    if newlines == "flow":
        escape |= code_points == NEWLINE_MARK
    dropped = np.zeros(len(code_points), bool)
    if len(code_points) > 1:
        dropped[1:] = (code_points[1:] == _LF) & (code_points[:-1] == _CR)
    if newlines == "flow":
        code_points = np.where(newline, np.uint32(NEWLINE_MARK), code_points)
        widths[newline] = atlas.width[NEWLINE_MARK]
        classes[newline] = Break.NEWLINE_MARK
    escaped = int(np.count_nonzero(escape))
    if not (escaped or tab.any() or dropped.any()):
        return Units(code_points, widths, classes, None, len(text), 0)

    counts = np.ones(len(code_points), np.int64)
    counts[dropped] = 0
    counts[escape] = _escape_lengths(code_points[escape])
    if tab.any():
        _count_tabs(counts, np.where(escape, counts, widths), newline, np.flatnonzero(tab), tab_width)
        code_points = np.where(tab, np.uint32(_SPACE), code_points)
        widths[tab] = 1
        classes[tab] = Break.SPACE
    origin = np.repeat(np.arange(len(code_points)), counts)
    units = Units(code_points[origin], widths[origin], classes[origin], origin, len(text), escaped)
    if escaped:
        _write_escapes(units, origin, counts, escape)
    return units


def _escape_lengths(code_points: np.ndarray) -> np.ndarray:
    """Return the characters of "[U+XXXX]" with four to six digits."""
    return 8 + (code_points > 0xFFFF).astype(np.int64) + (code_points > 0xFFFFF)


def _count_tabs(counts: np.ndarray, cells: np.ndarray, newline: np.ndarray, tabs: np.ndarray, tab_width: int) -> None:
    """Write into ``counts`` how many spaces each tab is; a tab's column depends on the tabs before it."""
    before = np.concatenate(([0], np.cumsum(cells, dtype=np.int64)))
    starts = np.concatenate(([0], np.flatnonzero(newline) + 1))
    lines = np.searchsorted(starts, tabs, side="right") - 1
    columns = before[tabs] - before[starts[lines]]
    line, added = -1, 0
    spaces = []
    for column, its_line in zip(columns.tolist(), lines.tolist(), strict=True):
        if its_line != line:
            line, added = its_line, 0
        width = tab_width - (column + added) % tab_width
        added += width
        spaces.append(width)
    counts[tabs] = spaces


def _write_escapes(units: Units, origin: np.ndarray, counts: np.ndarray, escape: np.ndarray) -> None:
    """Put the characters of the escapes in the place of the code points that they stand for."""
    starts = np.cumsum(counts) - counts
    at = np.flatnonzero(escape[origin])
    source = origin[at]
    place = at - starts[source]
    digit = counts[source] - 2 - place  # counted from the last; negative at the closing bracket
    values = units.code_points[at]
    shown = _HEX[(values >> (4 * digit.clip(0, 7)).astype(np.uint32)) & 15]
    shown[digit < 0] = ord("]")
    head = place < len(_ESCAPE_HEAD)
    shown[head] = _ESCAPE_HEAD[place[head]]
    units.code_points[at] = shown
    units.widths[at] = 1
    units.classes[at] = Break.ESCAPE
    units.classes[at[place == 0]] = Break.ESCAPE_START
    units.classes[at[digit < 0]] = Break.ESCAPE_END
