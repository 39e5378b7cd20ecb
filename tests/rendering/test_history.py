"""A growing text: the pages that drawing it whole gives, and only the last ones drawn again."""

from __future__ import annotations

import random

import pytest

from ocrmem.config import LabelSection, RenderSection
from ocrmem.conversations import Message
from ocrmem.rendering import HistoryRenderer, history, load_atlas, render_text, transcript
from ocrmem.rendering.drawing import draw_page
from ocrmem.rendering.grid import lay_out
from ocrmem.rendering.history import GrowingPages

ATLAS = load_atlas()
PIECES = (
    "The ferry left late that morning because the fog had not lifted from the harbour.",
    "甲板上的人并不着急，他们靠着栏杆，听远处的钟声。",
    "a\tb\tc",
    "x" * 300,
    "\U000f0000\U000f0001 no glyph " * 12,
    "line\r\nline\u2028line\x0bline",
    "",
    "e\u0301 ok 👍 " * 30,
)


def settings(**changes: object) -> RenderSection:
    values = {"page_size": 256, "token_size": 32, "line_height": 32, "max_pages": 1000}
    return RenderSection(**(values | changes))


def texts(seed: int, turns: int) -> list[str]:
    """Ever longer beginnings of one transcript, each ending in a newline."""
    generator, text, found = random.Random(seed), "", []
    for _ in range(turns):
        for _ in range(generator.randint(0, 4)):
            text += f"user: {generator.choice(PIECES)}\n"
        found.append(text)
    return found


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("newlines", ["break", "flow"])
@pytest.mark.parametrize("align", ["none", "token"])
@pytest.mark.parametrize("seed", range(4))
def test_pages_are_those_of_the_whole_text(seed: int, align: str, newlines: str, together: bool) -> None:
    section = settings(newlines=newlines, align=align, line_height=16, max_pages=3 if seed % 2 else 1000)
    growing = GrowingPages(section)
    shown = texts(seed, 25)
    if together:
        shown[-1] += "user: no newline"
        drawn = growing.draw_each(shown[-1], list(map(len, shown)))
    else:
        shown += [*texts(seed + 1, 3), *shown[10:], "user: no newline", "user: no newline, but more"]
        drawn = map(growing.draw, shown)
    for text, newest in zip(shown, drawn, strict=True):
        whole = render_text(text, section, ATLAS)
        kept = whole.pages[-section.max_pages :]
        assert [page.hash for page in newest.pages] == [page.hash for page in kept]
        assert newest.dropped == len(whole.pages) - len(kept)
        if kept:
            assert newest.start == whole.spans[newest.dropped * whole.geometry.rows, 0]


def test_a_turn_draws_the_last_page_alone() -> None:
    growing, line = GrowingPages(settings()), "user: one line\n"  # 8 lines a page
    pages = growing.draw(line * 64 * 8).pages
    for more, expected in ((0, 0), (3, 1), (7, 1), (7, 0), (9, 2), (9, 0), (25, 3)):  # 9: one is filled, one begun
        before, pages = set(map(id, pages)), growing.draw(line * (64 * 8 + more)).pages
        assert sum(id(page) not in before for page in pages) == expected


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("user: one\n" * 20, "user: two\n" * 20),  # another text
        ("user: one\n" * 20, "user: one\n" * 10),  # a shorter one
        ("user: one\n" * 20 + "open", "user: one\n" * 20 + "open row\n"),  # a row that was not final
    ],
)
def test_a_text_that_does_not_continue_the_last_one_is_drawn_from_its_start(first: str, then: str) -> None:
    growing = GrowingPages(settings())
    growing.draw(first)
    whole = render_text(then, settings(), ATLAS).pages
    newest = growing.draw(then)
    assert [page.hash for page in newest.pages] == [page.hash for page in whole]


def test_texts_that_continue_each_other_are_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out: list[str] = []
    monkeypatch.setattr(history, "lay_out", lambda text, *rest: laid_out.append(text) or lay_out(text, *rest))
    line = "user: one line\n"
    growing = GrowingPages(settings())
    assert len(list(growing.draw_each(line * 20, [len(line) * lines for lines in (3, 9, 20)]))) == 3
    growing.draw(line * 21)
    assert laid_out == [line * 20, line]


def test_no_more_full_pages_are_kept_than_the_settings_allow() -> None:
    growing = GrowingPages(settings(max_pages=2))
    newest = growing.draw("user: one line\n" * 8 * 30)
    assert (len(newest.pages), newest.dropped, len(growing._drawn)) == (2, 28, 2)


@pytest.mark.parametrize("align", ["none", "token"])
@pytest.mark.parametrize("newlines", ["break", "flow"])
def test_the_work_grows_with_the_text_and_not_with_its_square(
    monkeypatch: pytest.MonkeyPatch, newlines: str, align: str
) -> None:
    """Pages drawn and characters laid out for all histories of a conversation: a dropped page is not drawn."""
    drawn: list[int] = []
    laid_out: list[int] = []
    monkeypatch.setattr(history, "draw_page", lambda *of: drawn.append(1) or draw_page(*of))
    monkeypatch.setattr(history, "lay_out", lambda text, *of: laid_out.append(len(text)) or lay_out(text, *of))
    turns = 200
    messages = [Message("user", f"Where is item {n} of the list?") for n in range(turns)]
    renderer = HistoryRenderer(settings(max_pages=1, newlines=newlines, align=align, token_size=64))
    newest = list(renderer.draw_each(messages, range(turns + 1)))
    assert newest[-1].dropped > 10
    assert (len(newest), newest[0].pages) == (turns + 1, [])
    assert len(drawn) <= turns
    assert sum(laid_out) == len(transcript(messages, LabelSection()))
    alone = HistoryRenderer(settings(max_pages=1, newlines=newlines, align=align, token_size=64)).draw(messages[:150])
    assert [page.hash for page in alone.pages] == [page.hash for page in newest[150].pages]
    assert len(drawn) <= turns + 1  # of the pages of 150 messages, one
