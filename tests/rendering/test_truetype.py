"""Cells from a font file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from ocrmem.config import RenderSection
from ocrmem.errors import ConfigError
from ocrmem.files import sha256_file
from ocrmem.rendering import Atlas, load_atlas, render_text
from ocrmem.rendering.atlas import unifont_data

SECTION = RenderSection(page_size=256, token_size=32)


@pytest.fixture(scope="module")
def font() -> Path:
    """DejaVu Sans Mono, which matplotlib brings along."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        pytest.skip("matplotlib, whose fonts this test uses, is not installed")
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSansMono.ttf"


def glyph(atlas: Atlas, character: str) -> bytes:
    atlas.prepare(np.array([ord(character)], np.uint32))
    first, width = atlas.index[ord(character)], atlas.width[ord(character)]
    return atlas.cells[first : first + width].tobytes()


def test_letters_come_from_the_font_and_the_rest_from_unifont(font: Path) -> None:
    atlas, unifont = load_atlas(str(font)), load_atlas()
    assert glyph(atlas, "g") != glyph(unifont, "g")
    assert glyph(atlas, "国") == glyph(unifont, "国")
    assert atlas.width[ord("国")] == 2


def test_version_holds_the_hash_of_the_font_file(font: Path) -> None:
    atlas = load_atlas(str(font))
    assert sha256_file(font) in atlas.version
    assert unifont_data().version in atlas.version


def test_every_character_has_ink_and_nothing_leaves_its_cells(font: Path) -> None:
    atlas = load_atlas(str(font))
    text = "".join(map(chr, [*range(0x21, 0x7F), *range(0xA1, 0x600), 0x2588, 0x2264, 0x221A]))
    render_text(text, SECTION, atlas)
    code_points = np.array([ord(character) for character in text])
    assert (atlas.index[code_points] > 0).all()
    assert (atlas.width[code_points] > 0).all()


def test_controls_and_private_use_are_escaped_though_the_font_has_glyphs(font: Path) -> None:
    assert render_text("\x07\ue000\uf6c5", SECTION, load_atlas(str(font))).escaped == 3


def test_glyphs_rasterised_later_change_no_page(font: Path) -> None:
    load_atlas.cache_clear()
    first = load_atlas(str(font))
    pages = [render_text("abc", SECTION, first).pages[0].hash]
    render_text("Привет {}", SECTION, first)
    pages.append(render_text("abc", SECTION, first).pages[0].hash)
    load_atlas.cache_clear()
    second = load_atlas(str(font))
    render_text("cba Привет", SECTION, second)
    pages.append(render_text("abc", SECTION, second).pages[0].hash)
    assert len(set(pages)) == 1


@pytest.mark.parametrize("content", [None, b"", b"no font at all", b"\0\1\0\0" + bytes(50)])
def test_what_is_no_font_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.ttf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"render\.atlas: .*broken\.ttf"):
        load_atlas(str(path))


def test_without_pillow_and_fonttools_the_extra_is_named(font: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ocrmem.rendering.truetype", None)
    load_atlas.cache_clear()
    with pytest.raises(ConfigError, match=r"ocrmem\[fonts\]"):
        load_atlas(str(font))
    load_atlas.cache_clear()
