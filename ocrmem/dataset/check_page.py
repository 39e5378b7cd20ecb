"""checks/index.html: what `check` found, in one file that needs no other and no network; all text in it is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocrmem.conversations import SPLITS
from ocrmem.dataset.distributions import Distributions
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.files import write_text
from ocrmem.html.svg_charts import histogram
from ocrmem.html.template import render_template

_TEMPLATE = Path(__file__).with_name("check_page.html.jinja")
# Column, heading, what is counted, unit of the axis.
_CHARTS = (
    ("history_tokens", "History length", "samples", "text tokens of a history"),
    ("page_count", "Pages", "samples", "pages of a memory; 0: the history stays text"),
    ("compression_ratio", "Compression", "samples with memory", "text tokens per memory token"),
    ("answer_tokens", "Answer length", "samples", "tokens of an answer, its end token included"),
    ("blank_share", "Blank tokens", "pages", "share of a page's vision tokens without ink"),
    ("ink_share", "Ink", "pages", "share of black pixels where there is ink"),
)


def write_page(path: Path, result: Mapping[str, Any], seen: Distributions, dataset: MemoryDataset) -> None:
    """Write the page of a result of `check_dataset`.

    Args:
        result: success, warnings, expectations, figures and dataset are used.
        seen: the distributions of the same tables.
        dataset: what was checked.
    """
    outcomes = [outcome | _in_words(outcome, result["figures"]) for outcome in result["expectations"]]
    failed = [outcome for outcome in outcomes if not outcome["success"]]
    html = render_template(
        _TEMPLATE,
        verdict=_verdict(len(failed), len(outcomes)),
        outcomes=outcomes,
        failed=failed,
        warnings=result["warnings"],
        rows=seen.rows,
        shown=shown,
        splits={split: len(dataset.samples(split)) for split in SPLITS},
        with_memory=len(seen.values("compression_ratio")),
        charts=_charts(seen, result),
        figures=result["figures"],
        checked=result["dataset"],
        manifest=dataset.manifest,
        path=str(dataset.path),
    )
    write_text(path, html)


def _verdict(failed: int, count: int) -> str:
    if not failed:
        return f"All {count} expectations hold"
    return f"{failed} of {count} expectations {'does' if failed == 1 else 'do'} not hold"


def _in_words(outcome: Mapping[str, Any], figures: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Return what was asked and what was found, as a person would say it."""
    first, *others = outcome["columns"]
    low, high = outcome["bounds"].get("min"), outcome["bounds"].get("max")
    if others:
        asked = "equal"
    elif "values" in outcome["bounds"]:
        asked = " or ".join(shown(value) for value in outcome["bounds"]["values"])
    elif low == high:
        asked = f"{first.replace('_', ' ')}: {shown(low)}"
    elif high is None:
        asked = f"at least {shown(low)}"
    else:
        asked = _span(low, high)
    span = figures.get(first)
    if outcome["error"]:
        found = "could not be checked"
    elif span and not others and "values" not in outcome["bounds"]:
        found = _span(span["min"], span["max"])
    elif outcome["failed"]:
        found = f"different in {outcome['failed']:,}"
    else:
        found = "in all" if outcome["checked"] else "nothing to check"
    return {"asked": asked, "found": found}


def _span(low: float, high: float) -> str:
    return shown(low) if low == high else f"{shown(low)} to {shown(high)}"


def shown(value: Any) -> str:
    """Return a value for a person: numbers with four digits at least, anything else as it is."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.4g}"


def _charts(seen: Distributions, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    bounds = {outcome["columns"][0]: outcome["bounds"] for outcome in result["expectations"]}
    charts = []
    for column, heading, counted, unit in _CHARTS:
        bins = seen.bins(column)
        if bins is None:
            continue
        asked = bounds.get(column, {})
        marks = [(name, asked[key]) for key, name in (("min", "least"), ("max", "most")) if asked.get(key) is not None]
        figures = result["figures"][column]
        told = f"{_span(figures['min'], figures['max'])}, mean {shown(figures['mean'])}"
        svg = histogram(**bins, title=f"{heading}: {counted} by {unit}", unit=unit, marks=marks)
        charts.append({"heading": f"{heading}, {counted}", "svg": svg, "told": told})
    return charts
