"""What must hold for any Unicode text, lone surrogates included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocrmem.config import RenderSection
from ocrmem.rendering import Rendering, RowSpan, render_text
from ocrmem.rendering.history import GrowingPages
from tests.support.ink import ATLAS, NEWLINES, expected_ink, mixed, rows_of_ink

SETTINGS = [
    RenderSection(page_size=128, token_size=32, line_height=16),
    RenderSection(page_size=128, token_size=32, line_height=32, newlines="flow"),
    RenderSection(page_size=32, token_size=32, line_height=16, tab_width=3),  # escapes are longer than a row
    RenderSection(page_size=120, token_size=40, line_height=20, newlines="flow"),
]
BOXED = [
    RenderSection(page_size=192, token_size=64, line_height=16, align="token"),
    RenderSection(page_size=192, token_size=64, line_height=64, align="token"),  # a row a box
    RenderSection(page_size=64, token_size=32, line_height=16, align="token"),  # escapes are longer than a row
    RenderSection(page_size=120, token_size=40, line_height=20, newlines="flow", align="token"),
]

any_settings = st.sampled_from(SETTINGS + BOXED)
breaking = st.sampled_from([section for section in SETTINGS + BOXED if section.newlines == "break"])
# Neither an example nor making one has a limit of time: the machine may be busy.
on_any_machine = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def place(row: RowSpan, rendering: Rendering) -> tuple[int, int, int, int]:
    """Page, band of boxes, column of the box and row in it, as they are filled."""
    band, inside = divmod(row.row, rendering.geometry.box_rows)
    return row.page, band, row.column, inside


def final_rows(rendering: Rendering) -> list[RowSpan]:
    """The rows above the last one, or before the last box."""
    last = place(rendering.rows[-1], rendering)[:3] if rendering.rows else ()
    return [row for row in rendering.rows if place(row, rendering)[:3] != last]


@given(mixed, any_settings)
@on_any_machine
def test_every_character_is_ink_white_space_or_a_visible_escape(text: str, section: RenderSection) -> None:
    rows = rows_of_ink(render_text(text, section, ATLAS), section)
    assert [cell for row in rows for cell in row] == expected_ink(text, section.newlines)


@given(mixed, any_settings)
@on_any_machine
def test_pages_hold_no_ink_outside_their_rows(text: str, section: RenderSection) -> None:
    rendering = render_text(text, section, ATLAS)
    read_back = sum(
        int(np.bitwise_count(np.frombuffer(cell, np.uint8)).sum())
        for row in rows_of_ink(rendering, section)
        for cell in row
    )
    assert read_back == sum(int(np.bitwise_count(page.bits).sum()) for page in rendering.pages)


@given(mixed, any_settings)
@on_any_machine
def test_spans_map_every_row_to_its_source_and_cover_it(text: str, section: RenderSection) -> None:
    rendering = render_text(text, section, ATLAS)
    rows = rendering.rows
    assert len(rendering.pages) == -(-len(rendering.spans) // rendering.geometry.rows)
    assert (rows[0].start, rows[-1].end) == (0, len(text)) if text else rows == []
    for before, after in pairwise(rows):
        cut_escape = before.end == after.start + 1
        assert after.start == before.end or cut_escape
        assert place(after, rendering) > place(before, rendering)
    shared = {i for before, after in pairwise(rows) for i in range(after.start, before.end)}
    for row, ink in zip(rows, rows_of_ink(rendering, section), strict=True):
        source = range(row.start, row.end)
        if not shared.intersection(source) and text[row.start - 1 : row.start + 1] != "\r\n":
            assert ink == expected_ink(text[row.start : row.end], section.newlines)


@given(mixed, mixed, any_settings)
@on_any_machine
def test_no_page_but_the_last_depends_on_later_text(text: str, later: str, section: RenderSection) -> None:
    now = render_text(text, section, ATLAS)
    then = render_text(text + later, section, ATLAS)
    assert [p.hash for p in now.pages[:-1]] == [p.hash for p in then.pages[: max(len(now.pages) - 1, 0)]]
    assert final_rows(now) == then.rows[: len(final_rows(now))]


@given(mixed, mixed, breaking)
@on_any_machine
def test_after_a_newline_no_row_depends_on_later_text(text: str, later: str, section: RenderSection) -> None:
    now = render_text(text + "\n", section, ATLAS)
    then = render_text(text + "\n" + later, section, ATLAS)
    assert now.rows == then.rows[: len(now.rows)]
    assert rows_of_ink(now, section) == rows_of_ink(then, section)[: len(now.rows)]


@given(mixed, st.data(), any_settings)
@on_any_machine
def test_prefixes_are_drawn_as_if_alone(text: str, data: st.DataObject, section: RenderSection) -> None:
    ends = data.draw(st.lists(st.integers(0, len(text)), max_size=4))
    ends += [i + 1 for i, character in enumerate(text) if character in "\n\r"]
    growing = GrowingPages(section)
    for end in sorted(ends):
        newest, alone = growing.draw(text[:end]), render_text(text[:end], section, ATLAS).pages
        assert [page.hash for page in newest.pages] == [page.hash for page in alone[-section.max_pages :]]
        assert newest.dropped == len(alone) - len(newest.pages)


hanzi = st.lists(st.sampled_from(["国", "人，", "「天地", "上。", "下？」", "（中）", "ab", "x "]), max_size=30).map(
    "".join
)


@given(hanzi, st.sampled_from([SETTINGS[0], BOXED[0]]))
@on_any_machine
def test_closing_marks_start_no_row_and_opening_marks_end_none(text: str, section: RenderSection) -> None:
    rendering = render_text(text, section, ATLAS)
    for before, after in pairwise(rendering.rows):
        if place(after, rendering)[3]:
            continue  # inside a box every place is good
        assert text[after.start] not in "，。？」）"
        assert text[before.end - 1] not in "「（"


@given(mixed, any_settings)
@on_any_machine
def test_no_row_starts_with_a_space_that_the_row_before_could_end_with(text: str, section: RenderSection) -> None:
    rendering = render_text(text, section, ATLAS)
    for before, after in pairwise(rendering.rows):
        starts_line = ord(text[before.end - 1]) in NEWLINES
        inside_a_box = place(after, rendering)[3] > 0
        assert starts_line or inside_a_box or text[after.start] not in " \t"


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_gives_the_same_hashes(hash_seed: str) -> None:
    texts = [
        "plain text\n" * 50,
        "你好，世界。" * 200,
        "\ud800 \ue000 \t e\u0301 ❤\ufe0f\r\n" * 40,
        "x" * 999,
        "",
    ]
    script = (
        "import json, sys\n"
        "from ocrmem.config import RenderSection\n"
        "from ocrmem.rendering import load_atlas, render_text\n"
        "texts = json.load(sys.stdin)\n"
        "pages = [render_text(t, RenderSection(), load_atlas()).pages for t in texts]\n"
        "print(json.dumps([[p.hash for p in of_text] for of_text in pages]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )
    here = [[page.hash for page in render_text(text, RenderSection(), ATLAS).pages] for text in texts]
    assert json.loads(done.stdout) == here
