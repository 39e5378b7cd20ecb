"""report.html: the verdict, the findings and the chain, in one file that loads nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2


def html_report(report: Mapping[str, Any], measured: Sequence[str], title: str) -> str:
    """Render a report as HTML. Everything that comes from the model or the data is escaped.

    Args:
        report: what `Report.as_dict` returns.
        measured: what forward and backward gave, line by line.
    """
    template = resources.files("ocrmem.gradflow").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    widths = _bar_widths([node["gradient_norm"] for node in report["chain"]])
    return environment.from_string(template).render(title=title, report=report, verdict=measured, norms=widths)


def _bar_widths(norms: list[float | None]) -> list[int]:
    """Scale norms to widths in percent, logarithmically: gradients span many orders of magnitude."""
    logs = [math.log10(n) if n else None for n in norms]
    known = [value for value in logs if value is not None]
    if not known:
        return [0] * len(norms)
    low, high = min(known) - 1, max(known)
    return [0 if value is None else round(100 * (value - low) / (high - low)) for value in logs]
