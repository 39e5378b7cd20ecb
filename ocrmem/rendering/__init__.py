"""Text to page images: glyph atlas, layout, pages. numpy only; Pillow only for TrueType cells."""

from ocrmem.rendering.atlas import Atlas
from ocrmem.rendering.atlas_choice import load_atlas
from ocrmem.rendering.drawing import Rendering, RowSpan, render_text
from ocrmem.rendering.geometry import Geometry
from ocrmem.rendering.history import HistoryRenderer
from ocrmem.rendering.page import Page
from ocrmem.rendering.token_spans import TokenSpans, token_spans
from ocrmem.rendering.transcript import transcript

__all__ = [
    "Atlas",
    "Geometry",
    "HistoryRenderer",
    "Page",
    "Rendering",
    "RowSpan",
    "TokenSpans",
    "load_atlas",
    "render_text",
    "token_spans",
    "transcript",
]
