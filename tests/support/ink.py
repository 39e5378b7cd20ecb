"""Arbitrary text for property tests of rendering, and a slow second opinion on the ink that it must show."""

from __future__ import annotations

from hypothesis import strategies as st

from ocrmem.config import RenderSection
from ocrmem.rendering import Rendering, load_atlas
from ocrmem.rendering.text_units import NEWLINE_MARK

ATLAS = load_atlas()
NEWLINES = {0x0A, 0x0B, 0x0C, 0x0D, 0x85, 0x2028, 0x2029}
WHITE_SPACE = {0x09, 0x20, 0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000}

anything = st.text(st.characters(exclude_categories=()), max_size=40)
pieces = st.sampled_from(
    [
        "word ",
        "longerword",
        "a",
        " ",
        "   ",
        "\n",
        "\r",
        "\r\n",
        "\t",
        "\x0b",
        "\u2028",
        "\ud800",
        "\udc00",
        "𠀀",
        "你",
        "好，",
        "「",
        "」",
        "。",
        "……",
        "——",
        "(",
        ")",
        ".",
        "e\u0301",
        "か\u3099",
        "😀",
        "❤\ufe0f",
        "\u200d",
        "\x00",
        "\x7f",
        "\ue000",
        "\U0010ffff",
        "\u00a0",
        "\u3000",
        "\u200b",
        "↵",
        "[U+20000]",
        "漢字かな交じり",
    ]
)
mixed = st.lists(pieces | anything, max_size=40).map("".join)


def glyph_of(code_point: int) -> list[bytes]:
    """The inked cells of one code point."""
    first, width = int(ATLAS.index[code_point]), int(ATLAS.width[code_point])
    return [bytes(c) for c in ATLAS.cells[first : first + width] if c.any()] if first else []


def expected_ink(text: str, newlines: str) -> list[bytes]:
    """The inked cells that a text must show, in order: a slow second opinion."""
    ink: list[bytes] = []
    for at, character in enumerate(text):
        code_point = ord(character)
        if code_point in NEWLINES:
            second_half = character == "\n" and at and text[at - 1] == "\r"
            if newlines == "flow" and not second_half:
                ink += glyph_of(NEWLINE_MARK)
        elif code_point in WHITE_SPACE:
            pass
        elif not glyph_of(code_point) or (newlines == "flow" and code_point == NEWLINE_MARK):
            for letter in f"[U+{code_point:04X}]":
                ink += glyph_of(ord(letter))
        else:
            ink += glyph_of(code_point)
    return ink


def rows_of_ink(rendering: Rendering, section: RenderSection) -> list[list[bytes]]:
    """The inked cells of each row, read back from the pages' bits."""
    top = (section.line_height - 16) // 2
    rows = []
    for row in rendering.rows:
        y = row.row * section.line_height + top
        columns = slice(row.column, row.column + rendering.geometry.columns)
        cells = rendering.pages[row.page].bits[y : y + 16, columns].T
        rows.append([bytes(cell) for cell in cells if cell.any()])
    return rows
