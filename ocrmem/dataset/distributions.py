"""How the numbers that are checked are distributed, over all parts of the tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from ocrmem.dataset.expectations import Expectation
from ocrmem.dataset.tables import Table

_ALSO = ("history_tokens", "page_count", "blank_share")  # what no expectation bounds
_BINS = 12


class Bins(TypedDict):
    """What `ocrmem.html.svg_charts.histogram` draws: edges, one more than counts; whether a bin has one value only."""

    edges: list[float]
    counts: list[int]
    single: bool


class Distributions:
    """Rows of each table and, of each column of numbers, the values that are there.

    Args:
        expected: columns that these bound are kept, besides lengths, pages and blank shares.
    """

    def __init__(self, expected: Sequence[Expectation]) -> None:
        self.rows: Counter[str] = Counter()
        self._names = dict.fromkeys([*_ALSO, *(one.column for one in expected if one.kind == "between")])
        self._parts: defaultdict[str, list[np.ndarray]] = defaultdict(list)

    def add(self, table: str, columns: Table) -> None:
        """Add a part of a table."""
        self.rows[table] += len(next(iter(columns.values())))
        for name in self._names:
            values = [value for value in columns.get(name, ()) if value is not None]
            if values:
                self._parts[name].append(np.array(values, np.float64))

    def values(self, name: str) -> np.ndarray:
        """Return a column's values: float64 [n]."""
        return np.concatenate(self._parts[name]) if name in self._parts else np.empty(0)

    def figures(self) -> dict[str, dict[str, float]]:
        """Return min, mean and max of each column that has values."""
        found = {name: self.values(name) for name in self._names if name in self._parts}
        return {
            name: {
                key: round(float(value), 4)
                for key, value in (("min", values.min()), ("mean", values.mean()), ("max", values.max()))
            }
            for name, values in found.items()
        }

    def bins(self, name: str) -> Bins | None:
        """Return a histogram of a column, or None where it has no values.

        It has at most twelve bins; their edges are whole numbers if all values are.
        """
        values = self.values(name)
        if not len(values):
            return None
        low, high = float(values.min()), float(values.max())
        if whole := bool((values == np.floor(values)).all()):
            width = -(-int(high - low + 1) // _BINS)
            edges = low + width * np.arange(-(-int(high - low + 1) // width) + 1.0)
        else:
            edges = np.histogram_bin_edges(values, _BINS)
        counts, _ = np.histogram(values, edges)
        return {"edges": edges.tolist(), "counts": counts.tolist(), "single": whole and width == 1}
