"""Where rows break."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ocrmem.config import RenderSection
from ocrmem.rendering import load_atlas, render_text
from ocrmem.rendering.grid import PIECE

COLUMNS = 16  # of the pages used here


def rows_of(text: str, newlines: str = "break") -> list[str]:
    section = RenderSection(page_size=8 * COLUMNS, token_size=32, newlines=newlines)  # type: ignore[arg-type]
    return [text[row.start : row.end] for row in render_text(text, section, load_atlas()).rows]


@dataclass(frozen=True)
class Case:
    name: str
    text: str
    rows: list[str]


CASES = [
    Case("empty text has no row", "", []),
    Case("a newline ends a row and starts none", "a\n", ["a\n"]),
    Case("empty lines are rows", "a\n\n\nb", ["a\n", "\n", "\n", "b"]),
    Case("words wrap at spaces", "alpha betas gamma delta", ["alpha betas ", "gamma delta"]),
    Case("a full row and its newline", "0123456789abcdef\nx", ["0123456789abcdef\n", "x"]),
    Case("spaces hang over the margin", "0123456789abcdef    x", ["0123456789abcdef    ", "x"]),
    Case("hanging spaces keep the newline", "0123456789abcdef    \nx", ["0123456789abcdef    \n", "x"]),
    Case("indentation stays", "    deep\nx", ["    deep\n", "x"]),
    Case("a line of spaces only is one row", " " * 40 + "\nx", [" " * 40 + "\n", "x"]),
    Case("a long word is cut at the margin", "x" * 40, ["x" * 16, "x" * 16, "x" * 8]),
    Case("a long word starts a row", "ab " + "x" * 20, ["ab ", "x" * 16, "xxxx"]),
    Case("wide characters are two cells", "国" * 9, ["国" * 8, "国"]),
    Case("a wide character does not hang in half", "a" + "国" * 8, ["a" + "国" * 7, "国"]),
    Case("no closing mark starts a row", "国" * 8 + "。", ["国" * 7, "国。"]),
    Case("no run of closing marks starts a row", "国" * 7 + "！」。", ["国" * 6, "国！」。"]),
    Case("no opening mark ends a row", "国" * 7 + "「国」", ["国" * 7, "「国」"]),
    Case("no small kana starts a row", "か" * 8 + "っ", ["か" * 7, "かっ"]),
    Case("ASCII points do not leave an ideograph", "国" * 8 + ",", ["国" * 7, "国,"]),
    Case("ASCII points may start a row after a space", "0123456789abcde .foo", ["0123456789abcde ", ".foo"]),
    Case("a dash pair stays together", "国" * 7 + "—" * 2 + "国", ["国" * 7 + "——", "国"]),
    Case("Latin after a full-width comma", "国" * 7 + "，Word", ["国" * 7 + "，", "Word"]),
    Case("a break between Latin and ideographs", "abcdefghijklmn国国", ["abcdefghijklmn国", "国"]),
    Case("a mark stays with its base", "x" * 15 + "e\u0301", ["x" * 15, "e\u0301"]),
    Case("so does one that only the atlas knows", "x" * 15 + "א\u05b0", ["x" * 15, "א\u05b0"]),
    Case("a closing mark keeps the space before it", "国" * 7 + " ）", ["国" * 6, "国 ）"]),
    Case("an emoji sequence stays whole", "xxxxx xxxxxx ❤\ufe0f", ["xxxxx xxxxxx ", "❤\ufe0f"]),
    Case("a no-break space joins words", "aaa bbbbbbb\u00a0ccccccc", ["aaa ", "bbbbbbb\u00a0ccccccc"]),
    Case("an escape stays whole", "x" * 10 + "\ud800", ["x" * 10, "\ud800"]),
    Case("escapes break between them", "\ud800" * 3, ["\ud800\ud800", "\ud800"]),
    Case("brackets of code stay with it", "abcdef f(x)[0](y)", ["abcdef ", "f(x)[0](y)"]),
    Case("closing marks alone are cut at last", "。" * 9, ["。" * 8, "。"]),
    Case("a carriage return and line feed are one", "a\r\n\r\nb", ["a\r\n", "\r\n", "b"]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rows(case: Case) -> None:
    assert rows_of(case.text) == case.rows


FLOW = [
    Case("newlines start no row", "a\nb\n", ["a\nb\n"]),
    Case("a mark stays with the word before it", "aaa bbbb ccccccc\nd", ["aaa bbbb ", "ccccccc\nd"]),
    Case("a row may end after a mark", "aaa bbbb cccccc\n。d", ["aaa bbbb cccccc\n", "。d"]),
]


@pytest.mark.parametrize("case", FLOW, ids=lambda case: case.name)
def test_rows_where_newlines_flow(case: Case) -> None:
    assert rows_of(case.text, "flow") == case.rows


def test_long_texts_wrap_like_short_ones() -> None:
    """Texts are laid out in pieces of about `PIECE` characters: their edges must not show."""
    lines = ["alpha beta gamma delta\n", "x" * 40 + "\n", "short\n", "国" * 20 + "。\n"]
    once = [row for line in lines for row in rows_of(line)]
    times = 3 * PIECE // sum(map(len, lines)) + 1
    assert rows_of("".join(lines) * times) == once * times


def test_one_line_longer_than_a_piece_wraps_whole() -> None:
    assert rows_of("alpha betas " * PIECE) == ["alpha betas "] * PIECE
