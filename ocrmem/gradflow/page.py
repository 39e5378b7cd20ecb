"""report.html: the verdict, the findings and the chain, in one file that loads nothing."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import jinja2

if TYPE_CHECKING:
    from ocrmem.gradflow.report import Report


def render_page(report: Report, title: str) -> str:
    """The report as HTML. Everything that comes from the model or the data is escaped."""
    template = resources.files("ocrmem.gradflow").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    values = report.as_dict()
    return environment.from_string(template).render(
        title=title,
        report=values,
        verdict=report.measured(),
        norms=_bar_widths([node["gradient_norm"] for node in values["chain"]]),
    )


def _bar_widths(norms: list[float | None]) -> list[int]:
    """Widths in percent on a logarithmic scale: gradients span many orders of magnitude."""
    import math

    logs = [math.log10(n) if n else None for n in norms]
    known = [value for value in logs if value is not None]
    if not known:
        return [0] * len(norms)
    low, high = min(known) - 1, max(known)
    return [0 if value is None else round(100 * (value - low) / (high - low)) for value in logs]
