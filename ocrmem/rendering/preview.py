"""Pages as PNG files that a person can look at."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from ocrmem.config import RenderSection
from ocrmem.files import write_bytes
from ocrmem.rendering.atlas import load_atlas
from ocrmem.rendering.drawing import render_text
from ocrmem.rendering.page import Page


def preview_pages(pages: Iterable[Page], directory: Path, limit: int) -> list[Path]:
    """Write the first ``limit`` pages as page-000.png, page-001.png and so on; existing ones are replaced."""
    paths = []
    for number, page in enumerate(islice(pages, limit)):
        path = directory / f"page-{number:03d}.png"
        write_bytes(path, page.png())
        paths.append(path)
    return paths


def write_preview(texts: Iterable[str], directory: Path, settings: RenderSection, limit: int) -> list[Path]:
    """Render texts and write the first ``limit`` of all their pages.

    Args:
        texts: for instance transcripts; each starts a page.
        directory: made when it is not there.
        settings: the render section.
        limit: pages in all.
    """
    atlas = load_atlas(settings.atlas)
    pages = (page for text in texts for page in render_text(text, settings, atlas).pages)
    return preview_pages(pages, directory, limit)
