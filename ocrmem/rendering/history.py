"""From a history to the pages that become memory: drawn, at most render.max_pages of them, none without ink.

What is on a full page is never drawn again, and a page that is dropped not at all, so the histories of one
conversation, each of which continues the last, cost little more than the longest of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ocrmem.config import RenderSection
from ocrmem.conversations import Message
from ocrmem.rendering.atlas_choice import load_atlas
from ocrmem.rendering.drawing import draw_page
from ocrmem.rendering.geometry import Geometry
from ocrmem.rendering.grid import lay_out
from ocrmem.rendering.page import Page
from ocrmem.rendering.text_units import Units
from ocrmem.rendering.token_spans import TokenSpans, token_spans
from ocrmem.rendering.transcript import message_ends, transcript


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
        spans: of ``text``; their pages are ``pages``, in the same order.
        pages: as `HistoryRenderer.draw` gives them.
    """

    text: str
    spans: TokenSpans
    pages: list[Page]


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
        return next(self.draw_each(history, [len(history)]))

    def draw_each(self, messages: Sequence[Message], ends: Sequence[int]) -> Iterator[NewestPages]:
        """Yield `draw` of ``messages[:end]`` for each end, such as the histories of a conversation's turns.

        The work is that of the longest one: all are laid out once, and a page that none keeps is not drawn.

        Args:
            messages: of the longest history.
            ends: ascending.
        """
        places = [0, *message_ends(messages, self.settings.labels)]
        text = transcript(messages, self.settings.labels)
        for newest in self._growing.draw_each(text, [places[end] for end in ends]):
            yield replace(newest, pages=[page for page in newest.pages if page.bits.any()])

    def pages_each(self, messages: Sequence[Message], ends: Sequence[int]) -> list[int]:
        """Return how many pages ``messages[:end]`` fills for each end, those that `draw_each` drops and blank ones too.

        None is drawn.
        """
        places = [0, *message_ends(messages, self.settings.labels)]
        text = transcript(messages, self.settings.labels)
        return self._growing.pages_each(text, [places[end] for end in ends])

    def under_tokens(self, history: Sequence[Message]) -> MemoryText:
        """Return the text under each vision token of the pages that `draw` gives."""
        text = transcript(history, self.settings.labels)
        newest = self._growing.draw(text)
        spans = token_spans(text, self.settings, load_atlas(self.settings.atlas))
        inked = [bool(page.bits.any()) for page in newest.pages]
        has_ink = np.array([False] * newest.dropped + inked, bool)
        page, token = np.divmod(spans.tokens, spans.tokens_per_page)
        kept = has_ink[page]
        place = np.cumsum(has_ink)[page[kept]] - 1
        tokens = place * spans.tokens_per_page + token[kept]
        pages = [page for page, ink in zip(newest.pages, inked, strict=True) if ink]
        return MemoryText(text, replace(spans, spans=spans.spans[kept], tokens=tokens), pages)


class GrowingPages:
    """Draws a text as `render_text` does, and one that continues it from its last page on.

    Args:
        settings: sizes, newlines, tab width; the newest ``max_pages`` pages are kept in memory.
    """

    _text: str
    _known: int  # characters of it that are laid out
    _first: int  # number of the page that the kept rows begin with
    _cells: np.ndarray  # of the kept rows, without those that may still change
    _starts: np.ndarray  # the first character of each
    _open: Units | None  # the row or box that may still change
    _drawn: dict[int, tuple[int, Page]]  # newest pages by number, with the rows on each

    def __init__(self, settings: RenderSection) -> None:
        self.settings = settings
        self._atlas = load_atlas(settings.atlas)
        self._geometry = Geometry.of(settings)
        self._forget()

    def draw(self, text: str) -> NewestPages:
        """Return the newest pages of a text.

        Where it begins with the text of the last call, which a newline closed, only what follows is laid out, and only
        pages that it changes are drawn. Any other text is drawn from its start.
        """
        return next(self.draw_each(text, [len(text)]))

    def draw_each(self, text: str, ends: Sequence[int]) -> Iterator[NewestPages]:
        """Yield `draw` of ``text[:end]`` for each end.

        Args:
            text: the longest one.
            ends: ascending; all but the last lie behind newlines, or are 0.
        """
        for cells, starts in self._rows_each(text, ends):
            yield self._newest(cells, starts)

    def pages_each(self, text: str, ends: Sequence[int]) -> list[int]:
        """Return the number of pages of ``text[:end]`` for each end, as in `draw_each`; none is drawn."""
        return [self._pages(cells) for cells, _ in self._rows_each(text, ends)]

    def _rows_each(self, text: str, ends: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield cells and first characters of the rows of ``text[:end]`` from page `_first` on, for each end."""
        if not ends:
            return
        known = self._text[: self._known]
        if not (known.endswith("\n") and text.startswith(known) and len(known) <= ends[0]):
            self._forget()
        self._text = text
        # Where newlines break, rows are final: all are laid out together.
        for group in [ends] if self.settings.newlines == "break" else [[end] for end in ends]:
            cells, starts = self._lay_out(group[-1])
            for end in group:
                last = int(np.searchsorted(starts, end))
                last += -last % self._geometry.box_rows  # the rest of its box stays empty
                yield cells[:last], starts[:last]

    def _lay_out(self, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Lay out the text as far as ``end``; return cells and first characters of the rows from page `_first` on."""
        rows = self._geometry.rows
        unused = max(-(-len(self._cells) // rows) - self.settings.max_pages, 0)
        self._first += unused
        laid = lay_out(self._text[self._known : end], self.settings, self._atlas, self._open)
        cells = np.concatenate((self._cells[unused * rows :], laid.cells))
        starts = np.concatenate((self._starts[unused * rows :], laid.spans[:, 0] + self._known))
        self._known, self._open = end, laid.open
        final = len(cells) - (self._geometry.box_rows if laid.open else 0)
        self._cells, self._starts = cells[:final], starts[:final]
        return cells, starts

    def _newest(self, cells: np.ndarray, starts: np.ndarray) -> NewestPages:
        """Return the newest pages of a text whose rows from page `_first` on are given; draw what is not there."""
        rows = self._geometry.rows
        pages = self._pages(cells)
        oldest = max(pages - self.settings.max_pages, 0)
        newest = []
        for number in range(oldest, pages):
            begin = (number - self._first) * rows
            on_page = cells[begin : begin + rows]
            count, page = self._drawn.get(number, (0, None))
            if page is None or count != len(on_page):
                page = draw_page(on_page, self._geometry, self._atlas)
                if begin + len(on_page) <= len(self._cells):
                    self._drawn[number] = len(on_page), page
            newest.append(page)
        self._drawn = {number: drawn for number, drawn in self._drawn.items() if number >= oldest}
        start = int(starts[(oldest - self._first) * rows]) if newest else 0
        return NewestPages(newest, oldest, start)

    def _pages(self, cells: np.ndarray) -> int:
        """Return the number of pages of a text whose rows from page `_first` on are given."""
        return self._first + -(-len(cells) // self._geometry.rows)

    def _forget(self) -> None:
        self._text, self._known, self._first = "", 0, 0
        self._cells = np.empty((0, self._geometry.columns), np.int32)
        self._starts = np.empty(0, np.int64)
        self._open = None
        self._drawn = {}
