"""Pages of a text that grows at its end, such as a chat's: what is on a full page is never drawn again."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from ocrmem.config import RenderSection
from ocrmem.rendering.atlas import Atlas
from ocrmem.rendering.drawing import lay_out, paginate
from ocrmem.rendering.geometry import Geometry
from ocrmem.rendering.page import Page


@dataclass(frozen=True)
class Newest:
    """The newest pages of a text.

    Attributes:
        pages: at most ``render.max_pages``, oldest first.
        dropped: older pages that there was no room for.
        start: index of the first character on the first of ``pages``.
        drawn: how many of ``pages`` were drawn for this call.
    """

    pages: list[Page]
    dropped: int
    start: int
    drawn: int


class GrowingPages:
    """Draws a text as `render_text` does, and a longer one from the last page on.

    Args:
        settings: sizes, newlines, tab width; the newest ``max_pages`` full pages are kept in memory.
        atlas: of `load_atlas(settings.atlas)`.
    """

    _text: str
    _full: deque[tuple[Page, int]]  # full pages, and the first character of each
    _count: int  # full pages, those that are no longer kept included
    _line: int  # first character of the line in which the page after the full ones begins
    _skip: int  # rows of that line which are on a full page

    def __init__(self, settings: RenderSection, atlas: Atlas) -> None:
        self.settings = settings
        self.atlas = atlas
        self._geometry = Geometry.of(settings)
        self._forget()

    def draw(self, text: str) -> Newest:
        """The newest pages of a text.

        Where it begins with the text of the last call, whose rows a closing newline made final, full pages stay
        and layout goes on at the line in which the page after them begins. Any other text is drawn from its
        start, and so is every text where newlines flow.
        """
        if self.settings.newlines == "flow" or not (self._text.endswith("\n") and text.startswith(self._text)):
            self._forget()
        self._text = text
        grids, spans, _ = lay_out(text[self._line :], self.settings, self.atlas)
        starts = spans[self._skip :, 0] + self._line
        drawn = list(paginate(_without_first(grids, self._skip), self._geometry, self.atlas))
        rows = self._geometry.rows
        pages = [*self._full, *zip(drawn, starts[::rows].tolist(), strict=True)]
        count = self._count + len(drawn)
        self._keep(drawn, spans[:, 0] + self._line)
        newest = pages[-self.settings.max_pages :]
        return Newest(
            pages=[page for page, _ in newest],
            dropped=count - len(newest),
            start=newest[0][1] if newest else 0,
            drawn=min(len(drawn), len(newest)),
        )

    def _forget(self) -> None:
        self._text = ""
        self._full = deque(maxlen=self.settings.max_pages)
        self._count = self._line = self._skip = 0

    def _keep(self, drawn: list[Page], starts: np.ndarray) -> None:
        """Remember the full ones among the pages drawn, and where the next one begins.

        Args:
            drawn: the pages after those kept so far.
            starts: first character of every row laid out for them, skipped rows included.
        """
        rows = self._geometry.rows
        full = (len(starts) - self._skip) // rows
        places = starts[self._skip :: rows].tolist()
        self._full.extend(zip(drawn[:full], places, strict=False))
        self._count += full
        row = self._skip + full * rows
        if row == len(starts):
            self._line, self._skip = len(self._text), 0
            return
        self._line = self._text.rfind("\n", 0, int(starts[row])) + 1
        self._skip = row - int(np.searchsorted(starts, self._line))


def _without_first(grids: list[np.ndarray], rows: int) -> list[np.ndarray]:
    kept = []
    for grid in grids:
        kept.append(grid[rows:])
        rows = max(0, rows - len(grid))
    return kept
