"""The text under each vision token: exact, because the pages were drawn from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ocrmem.config import RenderSection
from ocrmem.facts import CELL_WIDTH, tokens_per_page
from ocrmem.rendering.atlas import Atlas
from ocrmem.rendering.geometry import Geometry
from ocrmem.rendering.grid import Piece, pieces, source_spans


@dataclass(frozen=True)
class TokenSpans:
    """Fragments of a text, each under one vision token. In the order of the text, without a gap.

    Attributes:
        spans: int64 [f, 2]; start and end in the text. They overlap only where the escape of one character lies
            under two tokens.
        tokens: int64 [f]; page * tokens_per_page + number of the token on its page, row by row as in
            `Page.ink_mask`. Where text is not aligned to tokens, a token sees a fragment of each of its rows.
        tokens_per_page: blank ones included.
    """

    spans: np.ndarray
    tokens: np.ndarray
    tokens_per_page: int

    def of_page(self, page: int) -> list[list[tuple[int, int]]]:
        """Return what lies under every vision token of a page: (start, stop) of each fragment; [] under a blank one."""
        first = page * self.tokens_per_page
        found: list[list[tuple[int, int]]] = [[] for _ in range(self.tokens_per_page)]
        here = np.flatnonzero((self.tokens >= first) & (self.tokens < first + self.tokens_per_page))
        for token, (start, stop) in zip(self.tokens[here].tolist(), self.spans[here].tolist(), strict=True):
            found[token - first].append((start, stop))
        return found

    def at(self, characters: np.ndarray) -> np.ndarray:
        """Return the vision token over each character, as in ``tokens``; -1 where there is none.

        Args:
            characters: integer [n]; indices into the text.
        """
        fragment = np.searchsorted(self.spans[:, 0], characters, side="right") - 1
        inside = fragment >= 0
        inside[inside] = characters[inside] < self.spans[fragment[inside], 1]
        return np.where(inside, self.tokens[fragment] if len(self.tokens) else -1, -1)


def token_spans(text: str, settings: RenderSection, atlas: Atlas) -> TokenSpans:
    """Return which characters lie under which vision token of the pages that `render_text` draws.

    Spaces and a newline behind the last glyph of a row lie under that glyph's token or behind it in the row; what
    hangs over the right margin lies under the row's last token.

    Args:
        text: any str.
        settings: as for `render_text`.
        atlas: of `load_atlas(settings.atlas)`.

    Raises:
        ConfigError: the sizes do not fit each other.
    """
    geometry = Geometry.of(settings)
    per_page = tokens_per_page(settings.page_size, settings.token_size)
    spans: list[np.ndarray] = [np.empty((0, 2), np.int64)]
    tokens: list[np.ndarray] = [np.empty(0, np.int64)]
    first_row = 0
    for piece in pieces(text, settings, atlas):
        of_units = _tokens_of_units(piece, geometry, settings.token_size, first_row)
        starts = np.flatnonzero(np.diff(of_units, prepend=-1))
        spans.append(source_spans(piece.units, np.append(starts, len(of_units))) + piece.offset)
        tokens.append(of_units[starts])
        first_row += len(piece.rows)
    return TokenSpans(np.concatenate(spans), np.concatenate(tokens), per_page)


def _tokens_of_units(piece: Piece, geometry: Geometry, token_size: int, first_row: int) -> np.ndarray:
    """Return each unit's vision token: int64 [n]."""
    starts, cells = piece.rows.starts, piece.rows.cells
    lengths = starts[1:] - starts[:-1]
    columns = cells[:-1] - np.repeat(cells[starts[:-1]], lengths)
    columns -= piece.units.widths == 0  # a newline takes no cell: it goes with what stands before it
    columns = columns.clip(0, geometry.columns - 1)
    page, line, first_column = geometry.places(np.arange(first_row, first_row + len(lengths)))
    side = geometry.page_size // token_size
    band = page * side**2 + line // (token_size // geometry.line_height) * side
    return np.repeat(band, lengths) + (np.repeat(first_column, lengths) + columns) // (token_size // CELL_WIDTH)
