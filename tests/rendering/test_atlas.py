"""The vendored atlas: what it holds, and that damage is noticed."""

from __future__ import annotations

import numpy as np
import pytest

from ocrmem.errors import ConfigError, DataError
from ocrmem.rendering import load_atlas
from ocrmem.rendering.atlas import UNIFONT, AtlasData, unifont_data

VERSION = "unifont-15.0.01-88ec877c3aef"


def picture(character: str) -> list[str]:
    atlas = load_atlas()
    first, width = atlas.index[ord(character)], atlas.width[ord(character)]
    cells = np.unpackbits(atlas.cells[first : first + width], axis=1).reshape(width, 16, 8)
    return ["".join("#" if bit else "." for bit in row) for row in np.concatenate(cells, axis=1)]


def test_version_is_that_of_the_cells_pages_were_made_with() -> None:
    assert load_atlas().version == VERSION


def test_a_changed_pixel_changes_the_version() -> None:
    data = unifont_data()
    cells = data.cells.copy()
    cells[1000, 3] ^= 8
    changed = AtlasData(data.name, data.code_points, data.widths, data.marks, cells)
    assert changed.version != data.version


def test_latin_a_looks_like_one() -> None:
    assert picture("A")[4:15] == [
        "...##...",
        "..#..#..",
        "..#..#..",
        ".#....#.",
        ".#....#.",
        ".######.",
        ".#....#.",
        ".#....#.",
        ".#....#.",
        ".#....#.",
        "........",
    ]


@pytest.mark.parametrize(("character", "width"), [("A", 1), ("é", 1), ("你", 2), ("😀", 2), ("。", 2), ("\u0301", 1)])
def test_widths_in_cells(character: str, width: int) -> None:
    assert load_atlas().width[ord(character)] == width


def test_every_combining_mark_has_ink_in_a_cell_of_its_own() -> None:
    atlas = load_atlas()
    assert len(atlas.marks) > 2000
    assert (atlas.index[atlas.marks] > 0).all()


def test_whatever_has_a_width_has_ink_or_is_a_space() -> None:
    atlas = load_atlas()
    blank = np.flatnonzero((atlas.width > 0) & (atlas.index == 0)).tolist()
    assert blank == [0x20, 0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000]


def test_a_written_atlas_is_read_back_and_written_to_the_same_bytes(tmp_path) -> None:
    data = unifont_data()
    path = tmp_path / "atlas.npz"
    path.write_bytes(data.to_bytes())
    assert AtlasData.read(path).version == data.version
    assert AtlasData.read(path).to_bytes() == path.read_bytes()


@pytest.mark.parametrize("damage", ["missing", "not a zip", "cut off", "cells too few"])
def test_a_damaged_atlas_is_named(tmp_path, damage: str) -> None:
    path = tmp_path / "atlas.npz"
    if damage == "not a zip":
        path.write_bytes(b"PK nonsense")
    elif damage == "cut off":
        path.write_bytes(UNIFONT.read_bytes()[:1000])
    elif damage == "cells too few":
        data = unifont_data()
        broken = AtlasData(data.name, data.code_points, data.widths, data.marks, data.cells[:-1])
        path.write_bytes(broken.to_bytes())
    with pytest.raises(DataError, match=r"scripts/build_atlas\.py"):
        AtlasData.read(path)


def test_an_unknown_atlas_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"render\.atlas.*'comic'.*unifont"):
        load_atlas("comic")
