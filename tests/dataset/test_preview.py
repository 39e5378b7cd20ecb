"""PNG files for a person to look at."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ocrmem.config import RenderSection
from ocrmem.dataset.preview import write_preview

SECTION = RenderSection(page_size=64, token_size=32)  # four rows a page


def test_pages_are_written_up_to_the_limit(tmp_path: Path) -> None:
    paths = write_preview(["x\n" * 12], tmp_path / "new", SECTION, limit=2)
    assert [path.name for path in paths] == ["page-000.png", "page-001.png"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["page-000.png", "page-001.png"]
    assert Image.open(paths[0]).size == (64, 64)


def test_each_text_starts_a_page(tmp_path: Path) -> None:
    assert len(write_preview(["a\n", "b\n" * 5, ""], tmp_path, SECTION, limit=10)) == 3


def test_texts_behind_the_limit_are_not_drawn(tmp_path: Path) -> None:
    drawn = []

    def texts():
        for text in ("a", "b", "c", "d"):
            drawn.append(text)
            yield text

    write_preview(texts(), tmp_path, SECTION, limit=2)
    assert drawn == ["a", "b"]
