"""The grid of a page: how many cells and rows it has, from the render settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ocrmem.config import RenderSection
from ocrmem.errors import ConfigError
from ocrmem.facts import CELL_HEIGHT, CELL_WIDTH, page_problems


@dataclass(frozen=True)
class Geometry:
    """The grid of a page. Where text is aligned to tokens, a row is one of a box: as wide as a vision token.

    Attributes:
        page_size: px; pages are square.
        line_height: px from one row to the next.
        columns: half-width cells of a row.
        rows: rows of a page, those of all its boxes.
        top: px from the top of a line to the top of its cells.
        across: boxes side by side; 1 where rows are as wide as the page.
        box_rows: rows of a box; 1 where rows are as wide as the page.
    """

    page_size: int
    line_height: int
    columns: int
    rows: int
    top: int
    across: int = 1
    box_rows: int = 1

    @classmethod
    def of(cls, settings: RenderSection) -> Geometry:
        """Return the grid for these settings.

        Raises:
            ConfigError: sizes that do not divide each other, each fault with its field.
        """
        if problems := page_problems(settings.page_size, settings.token_size, settings.line_height):
            raise ConfigError(problems)
        boxed = settings.align == "token"
        across = settings.page_size // settings.token_size if boxed else 1
        return cls(
            page_size=settings.page_size,
            line_height=settings.line_height,
            columns=settings.page_size // CELL_WIDTH // across,
            rows=settings.page_size // settings.line_height * across,
            top=(settings.line_height - CELL_HEIGHT) // 2,
            across=across,
            box_rows=settings.token_size // settings.line_height if boxed else 1,
        )

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return where rows stand: int64 [n] each of pages, lines of the page, and columns of the page.

        Args:
            rows: int64 [n]; counted from the first page's first row, box after box.
        """
        pages, rows = np.divmod(rows, self.rows)
        boxes, rows = np.divmod(rows, self.box_rows)
        bands, boxes = np.divmod(boxes, self.across)
        return pages, bands * self.box_rows + rows, boxes * self.columns
