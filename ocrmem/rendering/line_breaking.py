"""The line breaks: a class for every code point and a table over neighbouring classes.

A small part of Unicode Standard Annex 14 (line breaking) and of the Japanese and Chinese rules for line
starts and ends, chosen so that a decision needs the two neighbours only: what stands before never depends on
what is written later. The tables are fixed here and in the vendored atlas, not taken from `unicodedata`,
whose content changes with the Python version.
"""

from __future__ import annotations

from enum import IntEnum, auto
from functools import cache

import numpy as np

CODE_POINTS = 0x110000


class Break(IntEnum):
    """Line breaking class of a laid-out character. Values stay below 16: two of them fit one byte."""

    WORD = 0  # letters, digits, anything not named below: no break between two of them
    SPACE = auto()  # break after a run; a run that does not fit hangs over the right margin
    IDEOGRAPH = auto()  # Chinese, Japanese, Korean, emoji: break before and after
    OPEN = auto()  # never ends a row
    OPEN_WIDE = auto()  # the same, with a break before it
    CLOSE = auto()  # never starts a row, not even after a space
    CLOSE_WIDE = auto()  # the same, with a break after it
    POINT = auto()  # ASCII points and small kana: starts a row only after a space
    MARK = auto()  # combining: stays with what it follows
    GLUE = auto()  # no break on either side
    NEWLINE = auto()  # ends a row (newlines: break)
    NEWLINE_MARK = auto()  # the visible mark of a newline (newlines: flow)
    ESCAPE_START = auto()  # [ of [U+20000]
    ESCAPE = auto()  # inside an escape
    ESCAPE_END = auto()  # ] of an escape
    TAB = auto()  # becomes SPACE once its width is known


_CLASSES = 16
_OPEN = "([{“‘«‹¿¡"
_OPEN_WIDE = "（［｛〔｟「『【《〈〖〘〚＜｢"
_CLOSE = ")]}’”»›…"
_CLOSE_WIDE = "，。、；：？！）］｝〕｠」』】》〉〗〙〛％—～〜｡､＞｣"
_POINT = ".,;:!?%ーぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶ々〻ゝゞヽヾ"
_LETTERS = {
    Break.OPEN: _OPEN,
    Break.OPEN_WIDE: _OPEN_WIDE,
    Break.CLOSE: _CLOSE,
    Break.CLOSE_WIDE: _CLOSE_WIDE,
    Break.POINT: _POINT,
}
_SPACES = (0x20, 0x1680, *range(0x2000, 0x2007), *range(0x2008, 0x200B), 0x205F, 0x3000)
_GLUE = (0x00A0, 0x2007, 0x2011, 0x200D, 0x202F, 0x2060, 0xFEFF)
_IDEOGRAPHS = (
    (0x1100, 0x1200),  # Hangul Jamo
    (0x2600, 0x27C0),  # symbols and dingbats, many of them emoji
    (0x2E80, 0xA4D0),  # CJK radicals to Yi
    (0xA960, 0xA980),
    (0xAC00, 0xD800),  # Hangul syllables
    (0xF900, 0xFB00),  # CJK compatibility ideographs
    (0xFE30, 0xFE50),  # CJK compatibility forms
    (0xFF00, 0xFFE7),  # full-width and half-width forms
    (0x16FE0, 0x18D90),  # Tangut, Khitan
    (0x1AFF0, 0x1B300),  # kana supplements, Nushu
    (0x1F000, 0x1FB00),  # emoji and pictographs
    (0x20000, 0x40000),  # CJK extensions
)
_MARKS = ((0x0300, 0x0370), (0x3099, 0x309B), (0xFE00, 0xFE10), (0x1F3FB, 0x1F400), (0xE0020, 0xE01F0))


def break_classes(marks: np.ndarray) -> np.ndarray:
    """Return the line breaking class of every code point.

    Args:
        marks: integer [n]; code points that combine with what they follow (the atlas knows them by their
            zero advance).

    Returns:
        uint8 [0x110000] of `Break` values.
    """
    table = np.zeros(CODE_POINTS, np.uint8)
    for start, stop in _IDEOGRAPHS:
        table[start:stop] = Break.IDEOGRAPH
    for kind, letters in _LETTERS.items():
        table[[ord(letter) for letter in letters]] = kind
    table[marks] = Break.MARK
    for start, stop in _MARKS:
        table[start:stop] = Break.MARK
    table[list(_SPACES)] = Break.SPACE
    table[list(_GLUE)] = Break.GLUE
    table[0x200B] = Break.IDEOGRAPH  # zero-width space: a place to break, drawn as a box
    # Unicode's mandatory breaks (UAX 14 classes BK, CR, LF, NL) are all one newline here.
    table[[0x0A, 0x0B, 0x0C, 0x0D, 0x85, 0x2028, 0x2029]] = Break.NEWLINE
    table[0x09] = Break.TAB
    return table


@cache
def may_break() -> np.ndarray:
    """Return bool [256]: whether a row may end between classes a and b, at index 16 a + b."""
    table = np.zeros((_CLASSES, _CLASSES), bool)
    table[[Break.SPACE, Break.IDEOGRAPH, Break.CLOSE_WIDE, Break.ESCAPE_END], :] = True
    table[:, [Break.IDEOGRAPH, Break.OPEN_WIDE, Break.ESCAPE_START]] = True
    _keep_together(table)
    table[Break.SPACE, Break.POINT] = True
    _end_runs(table)
    return table.reshape(-1)


@cache
def may_split() -> np.ndarray:
    """Return the same for a word longer than a row: any place that keeps clusters and escapes whole."""
    table = np.ones((_CLASSES, _CLASSES), bool)
    _keep_together(table)
    _end_runs(table)
    return table.reshape(-1)


@cache
def may_cut() -> np.ndarray:
    """Return the same for the rows inside a token box: anywhere but in clusters and escapes."""
    table = np.ones((_CLASSES, _CLASSES), bool)
    _keep_clusters(table)
    return table.reshape(-1)


def _keep_together(table: np.ndarray) -> None:
    table[[Break.OPEN, Break.OPEN_WIDE], :] = False
    table[:, [Break.CLOSE, Break.CLOSE_WIDE, Break.POINT]] = False
    _keep_clusters(table)


def _keep_clusters(table: np.ndarray) -> None:
    table[[Break.GLUE, Break.ESCAPE_START, Break.ESCAPE], :] = False
    table[:, [Break.MARK, Break.GLUE, Break.ESCAPE, Break.ESCAPE_END]] = False


def _end_runs(table: np.ndarray) -> None:
    # What follows a newline mark is a line of its own, whatever it starts with; spaces belong to the row
    # that they end.
    table[:, [Break.NEWLINE, Break.NEWLINE_MARK]] = False
    table[Break.NEWLINE_MARK, :] = True
    table[:, Break.SPACE] = False


def pairs(classes: np.ndarray) -> np.ndarray:
    """Return the index of each neighbouring pair of uint8 [n] classes in `may_break` and `may_split`: uint8 [n - 1]."""
    return (classes[:-1] << 4) | classes[1:]
