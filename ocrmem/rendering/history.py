"""From a history to the pages that become memory: drawn, at most render.max_pages of them, none without ink.

What is on a full page is never drawn again, so the histories of one conversation, each of which continues the last,
cost little more than the longest of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ocrmem.config import RenderSection
from ocrmem.conversations import Message
from ocrmem.rendering.atlas_choice import load_atlas
from ocrmem.rendering.drawing import paginate
from ocrmem.rendering.geometry import Geometry
from ocrmem.rendering.grid import lay_out
from ocrmem.rendering.page import Page
from ocrmem.rendering.token_spans import TokenSpans, token_spans
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


@dataclass(frozen=True)
class MemoryText:
    """A history's transcript, and which of it lies under which vision token of its memory.

    Attributes:
        text: all of it, what is on dropped pages included.
        spans: of ``text``; their pages are those of `HistoryRenderer.draw`, in the same order.
    """

    text: str
    spans: TokenSpans


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
        return next(self.draw_each([history]))

    def draw_each(self, histories: Sequence[Sequence[Message]]) -> Iterator[NewestPages]:
        """Draw histories each of which continues the last, such as those of a conversation's turns: `draw` of each.

        They are laid out together, which takes less time than one by one.
        """
        texts = [transcript(history, self.settings.labels) for history in histories]
        for newest in self._growing.draw_each(texts):
            yield replace(newest, pages=[page for page in newest.pages if page.bits.any()])

    def under_tokens(self, history: Sequence[Message]) -> MemoryText:
        """Return the text under each vision token of the pages that `draw` gives."""
        text = transcript(history, self.settings.labels)
        newest = self._growing.draw(text)
        spans = token_spans(text, self.settings, load_atlas(self.settings.atlas))
        has_ink = np.array([False] * newest.dropped + [bool(page.bits.any()) for page in newest.pages], bool)
        page, token = np.divmod(spans.tokens, spans.tokens_per_page)
        kept = has_ink[page]
        place = np.cumsum(has_ink)[page[kept]] - 1
        tokens = place * spans.tokens_per_page + token[kept]
        return MemoryText(text, replace(spans, spans=spans.spans[kept], tokens=tokens))


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
        return next(self.draw_each([text]))

    def draw_each(self, texts: Sequence[str]) -> Iterator[NewestPages]:
        """Yield `draw` of each text; those that continue each other are laid out together."""
        at = 0
        while at < len(texts):
            if not self._continues(self._text, texts[at]):
                self._forget()
            end = at + 1
            while end < len(texts) and self._continues(texts[end - 1], texts[end]):
                end += 1
            known = len(self._text)
            grid, spans, _ = lay_out(texts[end - 1][known:], self.settings, self._atlas)
            starts = spans[:, 0] + known
            row = 0
            for text in texts[at:end]:
                last = int(np.searchsorted(starts, len(text)))
                last += -last % self._geometry.box_rows  # the rest of its box stays empty
                self._text = text
                yield self._append(grid[row:last], starts[row:last])
                row = last
            at = end

    def _continues(self, before: str, text: str) -> bool:
        return self.settings.newlines == "break" and before.endswith("\n") and text.startswith(before)

    def _append(self, grid: np.ndarray, starts: np.ndarray) -> NewestPages:
        """Draw more rows, whose first characters are given."""
        rows = self._geometry.rows
        begun, begun_start = self._last or (None, 0)
        places = starts[-self._filled % rows :: rows].tolist()
        if begun is not None:
            places.insert(0, begun_start)
        drawn = list(paginate(grid, self._geometry, self._atlas, begun, self._filled))
        if begun is not None and not drawn:
            drawn = [begun]
        pages = list(zip(drawn, places, strict=True))
        full, self._filled = divmod(self._filled + len(grid), rows)
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
