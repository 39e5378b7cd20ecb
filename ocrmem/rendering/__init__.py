"""Text to page images: glyph atlas, layout, pages. numpy only; Pillow only for TrueType cells."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocrmem.rendering.atlas import Atlas, load_atlas
    from ocrmem.rendering.drawing import Rendering, RowSpan, render_text
    from ocrmem.rendering.geometry import Geometry
    from ocrmem.rendering.page import Page
    from ocrmem.rendering.preview import preview_pages, write_preview
    from ocrmem.rendering.text import transcript

_HOME = {
    "Atlas": "atlas",
    "load_atlas": "atlas",
    "Rendering": "drawing",
    "RowSpan": "drawing",
    "render_text": "drawing",
    "Geometry": "geometry",
    "Page": "page",
    "preview_pages": "preview",
    "write_preview": "preview",
    "transcript": "text",
}

__all__ = [
    "Atlas",
    "Geometry",
    "Page",
    "Rendering",
    "RowSpan",
    "load_atlas",
    "preview_pages",
    "render_text",
    "transcript",
    "write_preview",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
