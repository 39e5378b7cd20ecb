"""What lies in which box where text is aligned to vision tokens."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from ocrmem.config import RenderSection
from ocrmem.rendering import load_atlas, render_text
from ocrmem.rendering.token_spans import token_spans


def boxes_of(text: str, rows: int = 1, newlines: str = "break") -> list[str]:
    """The text of each box of 8 columns, to the last that holds any."""
    section = RenderSection(
        page_size=128,
        token_size=64,
        line_height=64 // rows,
        align="token",
        newlines=newlines,  # type: ignore[arg-type]
    )
    spans = token_spans(text, section, load_atlas())
    boxes = [""] * (int(spans.tokens[-1]) + 1 if len(spans.tokens) else 0)
    for token, (start, stop) in zip(spans.tokens.tolist(), spans.spans.tolist(), strict=True):
        boxes[token] += text[start:stop]
    return boxes


@dataclass(frozen=True)
class Case:
    name: str
    text: str
    boxes: list[str]
    rows: int = 1
    newlines: str = "break"


CASES = [
    Case("empty text has no box", "", []),
    Case("words share a box", "a cat is", ["a cat is"]),
    Case("a word that would straddle starts the next box", "the black cat", ["the ", "black ", "cat"]),
    Case("a space at the end stays", "the cats are", ["the cats ", "are"]),
    Case("so do many", "the cats     are", ["the cats     ", "are"]),
    Case("and a newline behind them", "the cats   \nare", ["the cats   \n", "are"]),
    Case("a newline moves on to the next box", "a\nb\nc", ["a\n", "b\n", "c"]),
    Case("an empty line is an empty box", "a\n\nb", ["a\n", "\n", "b"]),
    Case("a full box and its newline", "12345678\nx", ["12345678\n", "x"]),
    Case("indentation stays", "    deep\nx", ["    deep\n", "x"]),
    Case("a line of spaces is one box", " " * 20 + "\nx", [" " * 20 + "\n", "x"]),
    Case("a word longer than a box is cut at its border", "x" * 20, ["x" * 8, "x" * 8, "xxxx"]),
    Case("and starts a box", "ab " + "x" * 10 + " c", ["ab ", "x" * 8, "xx c"]),
    Case("a point stays with its word", "1234567.", ["1234567."]),
    Case("even where that moves the word", "a bcdefg. h", ["a ", "bcdefg. ", "h"]),
    Case("a mark stays with its base", "x" * 7 + "e\u0301", ["x" * 7, "e\u0301"]),
    Case("wide characters are two cells", "国" * 5, ["国" * 4, "国"]),
    Case("no wide character is cut", "a国国国国", ["a国国国", "国"]),
    Case("no closing mark starts a box", "国国国国。", ["国国国", "国。"]),
    Case("an escape stays whole", "xxx \ud800", ["xxx ", "\ud800"]),
    Case("but one that is longer than a box is under two", "\U0010fffe", ["\U0010fffe", "\U0010fffe"]),
    Case("rows of a box cut words", "a black cat", ["a black cat"], rows=2),
    Case("a box of rows ends like one of a row", "a black cat sits", ["a black cat sits"], rows=2),
    Case("a word that straddles it starts the next", "a black cat sat on", ["a black cat sat ", "on"], rows=2),
    Case("a wide character moves to the next row", "a国国国国国国国国", ["a国国国国国国国", "国"], rows=2),
    Case("a mark does so with its base", "x" * 7 + "e\u0301" + "y" * 7, ["x" * 7 + "e\u0301" + "y" * 6, "y"], rows=2),
    Case("newlines that flow do not move on", "a\nb\nc", ["a\nb\nc"], newlines="flow"),
    Case("what follows their mark may", "one\ntwo\nthree", ["one\ntwo\n", "three"], newlines="flow"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_boxes(case: Case) -> None:
    assert boxes_of(case.text, case.rows, case.newlines) == case.boxes


def filled(text: str, room: int) -> list[str]:
    """Boxes of plain words, one character a cell: a slow second opinion."""
    boxes = []
    for line in text.splitlines(keepends=True):
        rest = line
        while len(rest.rstrip(" \n")) > room:
            end = room
            if rest[room] != " ":
                end = rest.rfind(" ", 0, room) + 1 or room
            while end < len(rest) and rest[end] == " ":
                end += 1
            boxes.append(rest[:end])
            rest = rest[end:]
        boxes.append(rest)
    return boxes


@pytest.mark.parametrize("tail", ["", "\n国"])  # with one wide character all text takes the longer way
@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("seed", range(10))
def test_words_fill_boxes_as_a_loop_over_them_would(seed: int, rows: int, tail: str) -> None:
    source = random.Random(seed)
    words = ["".join(source.choices("abcdefgh", k=source.choice((1, 2, 3, 5, 7, 8, 9, 20)))) for _ in range(60)]
    text = "".join(word + source.choice((" ", " ", " ", "  ", "\n", "          ")) for word in words)
    assert boxes_of(text + tail, rows) == filled(text + tail, 8 * rows)


@pytest.mark.parametrize("rows", [1, 4])
def test_a_wide_character_far_behind_changes_nothing_before_it(rows: int) -> None:
    """Text of one cell a character takes a shorter way: it must lead to the same boxes."""
    text = "Every house kept a lamp (partly out of habit), in the window...\n\tx = [1, 2]  \n" * 5
    plain, mixed = boxes_of(text, rows), boxes_of(text + "国e\u0301", rows)
    assert mixed[: len(plain)] == plain


def test_boxes_stand_side_by_side_and_then_below() -> None:
    section = RenderSection(page_size=128, token_size=64, align="token")
    (page,) = render_text("one\ntwo\nthree", section, load_atlas()).pages
    assert page.ink_mask(64).tolist() == [True, True, True, False]
