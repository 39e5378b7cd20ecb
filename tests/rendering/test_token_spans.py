"""The text under each vision token: what the page shows there, nothing left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocrmem.config import RenderSection
from ocrmem.conversations import Message
from ocrmem.rendering import HistoryRenderer, Page, render_text
from ocrmem.rendering.token_spans import TokenSpans, token_spans
from tests.support.ink import ATLAS, expected_ink, mixed

NATURAL = [
    RenderSection(page_size=64, token_size=32),
    RenderSection(page_size=128, token_size=32, line_height=32),
    RenderSection(page_size=96, token_size=32, newlines="flow"),
]
BOXED = [
    RenderSection(page_size=128, token_size=64, align="token"),
    RenderSection(page_size=128, token_size=64, line_height=64, align="token"),
    RenderSection(page_size=96, token_size=32, newlines="flow", align="token"),
]
narrow = st.lists(
    st.sampled_from(["word ", "longerword", "a", "  ", "\n", "\r\n", "\t", ".", "e\u0301", "\ud800", "\x00", "(", "↵"]),
    max_size=40,
).map("".join)
on_any_machine = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def ink_under(page: Page, token: int, section: RenderSection) -> list[bytes]:
    """The inked cells of one vision token, read back from the page's bits."""
    side, cells = section.page_size // section.token_size, section.token_size // 8
    row, column = divmod(token, side)
    patch = page.bits[row * section.token_size : (row + 1) * section.token_size, column * cells : (column + 1) * cells]
    top = (section.line_height - 16) // 2
    lines = [patch[y + top : y + top + 16].T for y in range(0, section.token_size, section.line_height)]
    return [bytes(cell) for line in lines for cell in line if cell.any()]


def cut_characters(spans: TokenSpans) -> set[int]:
    """Characters under two tokens: escapes that the edge of a token cuts."""
    before, after = spans.spans[:-1, 1], spans.spans[1:, 0]
    return {int(start) for stop, start in zip(before, after, strict=True) if start < stop}


def shows_its_text(text: str, section: RenderSection) -> None:
    rendering = render_text(text, section, ATLAS)
    spans = token_spans(text, section, ATLAS)
    cut = cut_characters(spans)
    for number, page in enumerate(rendering.pages):
        for token, fragments in enumerate(spans.of_page(number)):
            if any(cut.intersection(range(*fragment)) for fragment in fragments):
                continue
            under = "".join(text[start:stop] for start, stop in fragments)
            assert ink_under(page, token, section) == expected_ink(under, section.newlines)


@given(narrow, st.sampled_from(NATURAL))
@on_any_machine
def test_a_token_shows_the_text_under_it(text: str, section: RenderSection) -> None:
    shows_its_text(text, section)


@given(mixed, st.sampled_from(BOXED))
@on_any_machine
def test_the_text_under_a_token_of_its_own_box_is_one_piece(text: str, section: RenderSection) -> None:
    shows_its_text(text, section)
    tokens = token_spans(text, section, ATLAS).tokens
    assert (np.diff(tokens) > 0).all()


@given(mixed, st.sampled_from(NATURAL + BOXED))
@on_any_machine
def test_every_character_lies_under_a_token(text: str, section: RenderSection) -> None:
    spans = token_spans(text, section, ATLAS)
    assert (spans.spans[:, 0] < spans.spans[:, 1]).all()
    joined = spans.spans[:-1, 1] - spans.spans[1:, 0]
    assert set(joined.tolist()) <= {0, 1}
    assert not text or (spans.spans[0, 0], spans.spans[-1, 1]) == (0, len(text))
    over = spans.at(np.arange(-1, len(text) + 1))
    assert (over[0], over[-1]) == (-1, -1)
    pages = len(render_text(text, section, ATLAS).pages)
    assert all(0 <= token < pages * spans.tokens_per_page for token in over[1:-1])


def test_what_lies_under_the_tokens_of_a_page_of_rows() -> None:
    text = "alpha beta\ngamma\n\n一二三四"
    spans = token_spans(text, RenderSection(page_size=64, token_size=32), ATLAS)
    pages = [[[text[start:stop] for start, stop in token] for token in spans.of_page(page)] for page in (0, 1)]
    assert pages[0] == [["alph", "beta\n"], ["a "], ["gamm", "\n"], ["a\n"]]
    assert pages[1] == [["一二"], ["三四"], [], []]


@pytest.mark.parametrize("max_pages", [1, 2, 9])
def test_a_history_is_read_where_its_pages_are(max_pages: int) -> None:
    section = RenderSection(page_size=64, token_size=32, max_pages=max_pages)
    renderer = HistoryRenderer(section)
    history = [Message("user", "one two three" + 9 * "\n" + "four"), Message("assistant", "five 5")]
    memory, pages = renderer.under_tokens(history), renderer.draw(history).pages
    assert memory.text == "user: one two three" + 9 * "\n" + "four\nassistant: five 5\n"
    read = [[memory.text[a:b] for a, b in token] for page in range(len(pages)) for token in memory.spans.of_page(page)]
    shown = [ink_under(page, token, section) for page in pages for token in range(4)]
    assert shown == [expected_ink("".join(texts), "break") for texts in read]
    assert int(memory.spans.tokens.max()) < 4 * len(pages)
    assert (memory.spans.at(np.array([0]))[0] == 0) == (max_pages == 9)
