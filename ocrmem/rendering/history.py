"""From a history to the pages that become memory: drawn, at most render.max_pages of them, none without ink.

What is on a full page is never drawn again, so the histories of one conversation, each of which continues the last,
cost little more than the longest of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ocrmem.config import RenderSection
from ocrmem.conversations import Message
from ocrmem.rendering.atlas_choice import load_atlas
from ocrmem.rendering.drawing import lay_out, paginate
from ocrmem.rendering.geometry import Geometry
from ocrmem.rendering.page import Page
from ocrmem.rendering.transcript import transcript


@dataclass(frozen=True)
class NewestPages:
    """The newest pages of a text.

    Attributes:
        pages: at most ``render.max_pages``, oldest first.
        dropped: older pages for which there was no room.
        start: index of the first character on the first page that was not dropped.
    """

    pages: list[Page]
    dropped: int
    start: int


class HistoryRenderer:
    """Draws histories as `ocrmem render` does, for the dataset, for an evaluation and for a chat.

    Args:
        settings: page and line sizes, labels, and the most pages.

    Raises:
        ConfigError: the sizes do not fit each other, or there is no such atlas.
    """

    def __init__(self, settings: RenderSection) -> None:
        self.settings = settings
        self._growing = GrowingPages(settings)

    def draw(self, history: Sequence[Message]) -> NewestPages:
        """Draw the messages that become memory; a page without ink (many empty lines) is left out."""
        newest = self._growing.draw(transcript(history, self.settings.labels))
        return replace(newest, pages=[page for page in newest.pages if page.bits.any()])


class GrowingPages:
    """Draws a text as `render_text` does, and one that continues it from its last page on.

    Args:
        settings: sizes, newlines, tab width; the newest ``max_pages`` full pages are kept in memory.
    """

    _text: str
    _full: deque[tuple[Page, int]]  # full pages, and the first character of each
    _count: int  # full pages, those that are no longer kept included
    _last: tuple[Page, int] | None  # the page after them, where it has rows
    _filled: int  # its rows

    def __init__(self, settings: RenderSection) -> None:
        self.settings = settings
        self._atlas = load_atlas(settings.atlas)
        self._geometry = Geometry.of(settings)
        self._forget()

    def draw(self, text: str) -> NewestPages:
        """Return the newest pages of a text.

        Where it begins with the text of the last call, whose rows a closing newline made final, only what follows is
        laid out and drawn. Any other text is drawn from its start, and so is every text where newlines flow.
        """
        if self.settings.newlines == "flow" or not (self._text.endswith("\n") and text.startswith(self._text)):
            self._forget()
        grids, spans, _ = lay_out(text[len(self._text) :], self.settings, self._atlas)
        rows = self._geometry.rows
        first_starts = spans[-self._filled % rows :: rows, 0] + len(self._text)
        begun, begun_start = self._last or (None, 0)
        starts = first_starts.tolist() if begun is None else [begun_start, *first_starts.tolist()]
        drawn = list(paginate(grids, self._geometry, self._atlas, begun, self._filled))
        if begun is not None and not drawn:
            drawn = [begun]
        pages = list(zip(drawn, starts, strict=True))
        full, self._filled = divmod(self._filled + len(spans), rows)
        self._text = text
        self._full.extend(pages[:full])
        self._count += full
        self._last = pages[full] if self._filled else None
        newest = [*self._full, *pages[full:]][-self.settings.max_pages :]
        dropped = self._count + len(pages) - full - len(newest)
        return NewestPages([page for page, _ in newest], dropped, newest[0][1] if newest else 0)

    def _forget(self) -> None:
        self._text = ""
        self._full = deque(maxlen=self.settings.max_pages)
        self._count = self._filled = 0
        self._last = None
