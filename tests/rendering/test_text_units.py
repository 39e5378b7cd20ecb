"""What each character becomes before it is laid out."""

from __future__ import annotations

import numpy as np
import pytest

from ocrmem.rendering import load_atlas
from ocrmem.rendering.text_units import code_points_of, to_units


def shown(text: str, newlines: str = "break", tab_width: int = 4) -> str:
    units = to_units(text, load_atlas(), newlines, tab_width)  # type: ignore[arg-type]
    return "".join(map(chr, units.code_points.tolist()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\tb", "a   b"),
        ("abcd\tb", "abcd    b"),
        ("\t\tb", "        b"),
        ("a\t\tb", "a       b"),
        ("你\tb", "你  b"),  # a wide character is two cells
        ("\x07\tb", "[U+0007]    b"),  # an escape's eight cells count
        ("abc\n\tb", "abc\n    b"),  # columns start again at a newline
        ("\tx\n\t\ty\tz", "    x\n        y   z"),
    ],
)
def test_a_tab_reaches_the_next_stop_in_cells(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_a_tab_after_a_newline_mark_counts_from_the_mark() -> None:
    assert shown("abc\na\tb", newlines="flow") == "abc↵a   b"


@pytest.mark.parametrize("newline", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize(("newlines", "widths"), [("break", [1, 0, 1]), ("flow", [1, 1, 1])])
def test_each_newline_variant_is_one_newline(newline: str, newlines: str, widths: list[int]) -> None:
    units = to_units(f"a{newline}b", load_atlas(), newlines, 4)  # type: ignore[arg-type]
    assert units.widths.tolist() == widths


def test_a_newline_mark_in_the_source_is_escaped_only_where_newlines_flow() -> None:
    assert shown("a↵b\n", newlines="flow") == "a[U+21B5]b↵"
    assert shown("a↵b\n", newlines="break") == "a↵b\n"


@pytest.mark.parametrize(
    ("character", "escape"),
    [
        ("\x00", "[U+0000]"),
        ("\x1b", "[U+001B]"),
        ("\x7f", "[U+007F]"),
        ("\x9f", "[U+009F]"),
        ("\ud800", "[U+D800]"),
        ("\udfff", "[U+DFFF]"),
        ("\ue000", "[U+E000]"),
        ("\uffa0", "[U+FFA0]"),  # blank in the font, but not a space
        ("\U00020000", "[U+20000]"),
        ("\U0010ffff", "[U+10FFFF]"),
    ],
)
def test_what_has_no_glyph_is_escaped_and_counted(character: str, escape: str) -> None:
    units = to_units(f"a{character}b", load_atlas(), "break", 4)
    assert "".join(map(chr, units.code_points.tolist())) == f"a{escape}b"
    assert units.escaped == 1
    assert units.origin is not None
    assert units.origin.tolist() == [0, *[1] * len(escape), 2]


def test_surrogate_pairs_in_a_string_stay_two_surrogates() -> None:
    assert code_points_of("\ud83d\ude00").tolist() == [0xD83D, 0xDE00]


def test_text_without_anything_special_keeps_its_indices() -> None:
    units = to_units("hello 你好 e\u0301\n", load_atlas(), "break", 4)
    assert units.origin is None
    assert units.escaped == 0


def test_to_units_leaves_the_atlas_tables_alone() -> None:
    atlas = load_atlas()
    before = atlas.width.copy(), atlas.index.copy(), atlas.break_class.copy()
    to_units("a\tb\r\nc\ud800↵", atlas, "flow", 4)
    for old, new in zip(before, (atlas.width, atlas.index, atlas.break_class), strict=True):
        np.testing.assert_array_equal(old, new)
