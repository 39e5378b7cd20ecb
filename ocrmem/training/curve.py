"""Write the training curve as a table that `dvc plots`, a spreadsheet and pandas read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from ocrmem.files import write_text

COLUMNS = ("step", "loss", "proj_grad_norm", "learning_rate")


def curve_rows(log_history: Iterable[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return the rows of the log that hold a loss, with the columns of the table."""
    return [{name: entry[name] for name in COLUMNS if name in entry} for entry in log_history if "loss" in entry]


def write_curve(path: Path, rows: Iterable[Mapping[str, float]]) -> None:
    """Write the curve as CSV; numbers keep every digit, so equal runs give equal files."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
