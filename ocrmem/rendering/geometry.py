"""The grid of a page: how many cells and rows it has, from the render settings."""

from __future__ import annotations

from dataclasses import dataclass

from ocrmem.config import RenderSection
from ocrmem.errors import ConfigError
from ocrmem.facts import CELL_HEIGHT, CELL_WIDTH, page_problems


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
        """Return the grid for these settings.

        Raises:
            ConfigError: sizes that do not divide each other, each fault with its field.
        """
        if problems := page_problems(settings.page_size, settings.token_size, settings.line_height):
            raise ConfigError(problems)
        return cls(
            page_size=settings.page_size,
            line_height=settings.line_height,
            columns=settings.page_size // CELL_WIDTH,
            rows=settings.page_size // settings.line_height,
            top=(settings.line_height - CELL_HEIGHT) // 2,
        )
