"""The script that makes the vendored atlas from the fonts."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageFont

from ocrmem.files import sha256_file
from ocrmem.rendering.atlas import UNIFONT, AtlasData
from ocrmem.rendering.atlas_choice import load_atlas
from ocrmem.rendering.rasterise import _into, cells_of, has_own_cell

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_atlas.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_atlas", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_another_font_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    for name in ("unifont.otf", "unifont_upper.otf"):
        (tmp_path / name).write_bytes(b"another font")
    done = run("--fonts", tmp_path, "--output", tmp_path / "atlas.npz")
    assert done.returncode == 1
    assert "pinned" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "atlas.npz").exists()


def test_missing_fonts_are_named(tmp_path: Path) -> None:
    done = run("--fonts", tmp_path, "--output", tmp_path / "atlas.npz")
    assert done.returncode == 1
    assert "unifont.otf: is not there" in done.stderr


@pytest.mark.slow
def test_the_pinned_fonts_give_the_vendored_cells(script: ModuleType, tmp_path: Path) -> None:
    fonts = script.DEFAULT_FONTS
    for name, expected in script.FONTS.items():
        if not (fonts / name).is_file() or sha256_file(fonts / name) != expected:
            pytest.skip("the Debian package fonts-unifont 1:15.0.01-2 is not installed")
    output = tmp_path / "atlas.npz"
    done = run("--fonts", fonts, "--output", output)
    assert done.returncode == 0, done.stderr
    assert AtlasData.read(output).version == AtlasData.read(UNIFONT).version


def test_the_licence_of_the_cells_lies_beside_them() -> None:
    text = (UNIFONT.parent / "OFL.txt").read_text(encoding="utf-8")
    for part in ("SIL OPEN FONT LICENSE", "Roman Czyborra", "Paul Hardy", "Unifont Upper", "Version 15.0.01"):
        assert part in text


@pytest.mark.parametrize(
    ("low", "high", "size", "advance", "moved"),
    [
        (1, 7, 8, 8, 0),  # fits
        (-6, -2, 8, 0, 8),  # a mark over the cell in front: keeps its place
        (-12, -9, 8, 0, 12),  # a mark over a wide one: moved in from the left
        (-1, 6, 8, 8, 1),  # leans out to the left
        (3, 9, 8, 8, -1),  # leans out to the right
        (0, 9, 8, 8, None),  # too large
    ],
)
def test_ink_is_moved_into_its_cell(low: int, high: int, size: int, advance: int, moved: int | None) -> None:
    assert _into(low, high, size, advance) == moved


def test_controls_surrogates_and_private_use_have_no_cell() -> None:
    without = [0x00, 0x1F, 0x7F, 0x9F, 0xD800, 0xE000, 0xF8FF, 0xF0000, 0x10FFFF, 0x2028]
    assert not any(map(has_own_cell, without))
    assert all(map(has_own_cell, (0x20, 0x7E, 0xA0, 0x301, 0x4E00, 0xF900, 0xFFFD, 0x1F600, 0xE0100)))


def test_a_glyph_that_does_not_fit_is_left_to_unifont() -> None:
    font = ImageFont.load_default(40)
    assert isinstance(font, ImageFont.FreeTypeFont)
    assert cells_of(font, "W", 40, 14) is None
    assert cells_of(ImageFont.load_default(12), "g", 6, 15) is None  # below the cell, and not to be moved
    moved = cells_of(ImageFont.load_default(12), "g", 6, 15, shift_lines=True)
    assert moved is not None
    assert moved.any()
    assert not load_atlas().cells[0].any()
    assert Image.fromarray(np.unpackbits(moved, axis=0)).size == (16, 8)
