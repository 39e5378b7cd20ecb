"""A text cut into the words of a reader and the fragments under each vision token, for the preview."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ocrmem.rendering import TokenSpans, load_atlas
from ocrmem.rendering.line_breaking import Break, may_break, pairs
from ocrmem.rendering.text_units import code_points_of

_WHITE = (Break.SPACE, Break.NEWLINE, Break.TAB)
Piece = tuple[str, str, bool]


def shown_words(text: str, spans: TokenSpans, start: int, stop: int, atlas: str) -> Iterator[Piece]:
    """Yield ``text[start:stop]`` in pieces: each a word or, where it lies under several tokens, a part of one.

    Words are what rows break between, so an ideograph is a word of its own.

    Args:
        spans: of the whole text.
        atlas: ``render.atlas``; it says where rows may break.

    Yields:
        The piece; its tokens as in ``spans.tokens``, with spaces between, empty for white space and what no token
        sees; and whether it goes on with the word of the piece before it.
    """
    classes = load_atlas(atlas).break_class[code_points_of(text[start:stop])]
    white = np.isin(classes, _WHITE)
    new_word = np.append(True, may_break()[pairs(classes)] | (white[1:] != white[:-1]))
    inside = spans.spans[(spans.spans[:, 1] > start) & (spans.spans[:, 0] < stop)].reshape(-1) - start
    cuts = np.unique(np.concatenate((np.flatnonzero(new_word), inside[(inside > 0) & (inside < stop - start)])))
    # The fragments of a character are those that end behind it and begin before its end.
    first = np.searchsorted(spans.spans[:, 1], cuts + start, side="right")
    last = np.searchsorted(spans.spans[:, 0], cuts + start, side="right")
    ends = [*cuts[1:].tolist(), stop - start]
    for begin, end, low, high in zip(cuts.tolist(), ends, first.tolist(), last.tolist(), strict=True):
        tokens = [] if white[begin] else spans.tokens[low:high].tolist()
        yield text[start + begin : start + end], " ".join(map(str, tokens)), bool(tokens and not new_word[begin])
