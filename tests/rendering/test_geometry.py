"""Page sizes: the real ones, the tiny preset's, and those that do not fit."""

from __future__ import annotations

from typing import Any

import pytest

from ocrmem.config import LabelSection, RenderSection
from ocrmem.conversations import Message
from ocrmem.errors import ConfigError
from ocrmem.rendering import Geometry, load_atlas, render_text, transcript


@pytest.mark.parametrize(
    ("page_size", "token_size", "line_height", "align", "columns", "rows", "top", "boxes"),
    [
        (512, 64, 16, "none", 64, 32, 0, (1, 1)),
        (640, 64, 16, "none", 80, 40, 0, (1, 1)),
        (1024, 64, 16, "none", 128, 64, 0, (1, 1)),
        (1280, 64, 16, "none", 160, 80, 0, (1, 1)),
        (256, 32, 32, "none", 32, 8, 8, (1, 1)),
        (320, 40, 20, "none", 40, 16, 2, (1, 1)),
        (1024, 64, 16, "token", 8, 1024, 0, (16, 4)),
        (512, 64, 64, "token", 8, 64, 24, (8, 1)),
        (320, 40, 20, "token", 5, 128, 2, (8, 2)),
        (64, 64, 32, "token", 8, 2, 8, (1, 2)),
    ],
)
def test_grid(
    page_size: int, token_size: int, line_height: int, align: Any, columns: int, rows: int, top: int, boxes: Any
) -> None:
    section = RenderSection(page_size=page_size, token_size=token_size, line_height=line_height, align=align)
    assert Geometry.of(section) == Geometry(page_size, line_height, columns, rows, top, *boxes)
    rendering = render_text("x\n" * (rows // boxes[1] + 1), section, load_atlas())
    assert [page.size for page in rendering.pages] == [page_size, page_size]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"page_size": 1000}, "render.token_size"),
        ({"page_size": 1000, "token_size": 20, "line_height": 20}, "render.token_size"),
        ({"token_size": 60, "page_size": 960}, "render.token_size"),
        ({"line_height": 15}, "render.line_height"),
        ({"page_size": 64, "line_height": 80}, "render.line_height"),
        ({"page_size": 256, "token_size": 32, "line_height": 20}, "render.line_height"),
        ({"page_size": 144, "token_size": 96, "line_height": 48}, "render.token_size"),
        ({"page_size": 8, "token_size": 8}, "render.token_size"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(values: dict[str, int], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        render_text("x", RenderSection(**values), load_atlas())  # type: ignore[arg-type]
    assert field in [problem.place for problem in caught.value.problems]


def test_cells_sit_in_the_middle_of_taller_lines() -> None:
    section = RenderSection(page_size=256, token_size=32, line_height=32)
    page = render_text("█\n█\n", section, load_atlas()).pages[0]  # a glyph that fills its cell
    assert page.bits[:, 0].nonzero()[0].tolist() == [*range(8, 24), *range(40, 56)]


def test_spans_say_which_page_and_row() -> None:
    section = RenderSection(page_size=32, token_size=32)
    rows = render_text("a\nb\nc\n", section, load_atlas()).rows
    assert [tuple(row) for row in rows] == [(0, 0, 0, 0, 2), (0, 1, 0, 2, 4), (1, 0, 0, 4, 6)]


def test_spans_say_in_which_box() -> None:
    section = RenderSection(page_size=64, token_size=32, align="token")  # boxes of two rows of four
    rows = render_text("a\nb\nlong line", section, load_atlas()).rows
    assert [(row.row, row.column) for row in rows] == [(0, 0), (0, 4), (2, 0), (3, 0), (2, 4)]
    assert [(row.start, row.end) for row in rows] == [(0, 2), (2, 4), (4, 8), (8, 9), (9, 13)]


def test_transcript_labels_every_message_and_ends_it_with_a_newline() -> None:
    messages = [
        Message("system", "be brief"),
        Message("user", "hi"),
        Message("assistant", "a\nb"),
        Message("tool", "5"),
    ]
    text = transcript(messages, LabelSection(tool="tool> "))
    assert text == "system: be brief\nuser: hi\nassistant: a\nb\ntool> 5\n"
    assert transcript([], LabelSection()) == ""
