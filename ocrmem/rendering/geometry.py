"""How many cells and rows a page has, from the render settings."""

from __future__ import annotations

from dataclasses import dataclass

from ocrmem.config import RenderSection
from ocrmem.errors import ConfigError, Problem
from ocrmem.rendering.atlas import CELL_HEIGHT, CELL_WIDTH


@dataclass(frozen=True)
class Geometry:
    """The grid of a page.

    Attributes:
        page_size: px; pages are square.
        line_height: px from one row to the next.
        columns: half-width cells of a row.
        rows: rows of a page.
        top: px from the top of a line to the top of its cells.
    """

    page_size: int
    line_height: int
    columns: int
    rows: int
    top: int

    @classmethod
    def of(cls, settings: RenderSection) -> Geometry:
        """The grid for these settings.

        Raises:
            ConfigError: sizes that do not divide each other, each fault with its field.
        """
        if problems := geometry_problems(settings):
            raise ConfigError(problems)
        return cls(
            page_size=settings.page_size,
            line_height=settings.line_height,
            columns=settings.page_size // CELL_WIDTH,
            rows=settings.page_size // settings.line_height,
            top=(settings.line_height - CELL_HEIGHT) // 2,
        )


def geometry_problems(settings: RenderSection) -> list[Problem]:
    """Every fault of the page's sizes; empty when they fit."""
    problems = []
    if settings.token_size % CELL_WIDTH:
        problems.append(
            Problem(
                "render.token_size",
                f"{settings.token_size} px is not a multiple of the {CELL_WIDTH} px cell",
                "Use the encoder's patch size (64 for DeepSeek-OCR)",
            )
        )
    if settings.page_size % settings.token_size:
        problems.append(
            Problem(
                "render.page_size",
                f"{settings.page_size} px is not a multiple of render.token_size ({settings.token_size} px)",
                "Use 512, 640, 1024 or 1280 with DeepSeek-OCR's 64 px tokens",
            )
        )
    if settings.line_height < CELL_HEIGHT:
        problems.append(
            Problem(
                "render.line_height",
                f"{settings.line_height} px is less than the {CELL_HEIGHT} px cell",
                f"Use {CELL_HEIGHT} or more",
            )
        )
    if settings.page_size < max(settings.line_height, 2 * CELL_WIDTH):
        problems.append(
            Problem(
                "render.page_size",
                f"{settings.page_size} px leaves no room for one row of {settings.line_height} px",
                "Use a larger page or a smaller render.line_height",
            )
        )
    return problems
