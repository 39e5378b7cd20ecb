"""evaluation.html: one file that needs no other, no network and no script; all text in it is escaped."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ocrmem.config import RunConfig
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.schema import Sample
from ocrmem.evaluation.result import PHRASINGS, VARIANTS
from ocrmem.evaluation.scoring import Scored
from ocrmem.evaluation.statistics import evenly_spaced
from ocrmem.files import write_text
from ocrmem.html.svg_charts import bar_chart, histogram, line_chart
from ocrmem.html.template import png_address, render_template
from ocrmem.verdicts import percent

_TEMPLATE = Path(__file__).with_name("report.html.jinja")
TRAINING_CURVE = "plots/train.csv"  # as `ocrmem train` writes it
_PAGES_SHOWN = 2
_LONGEST_TEXT = 6000  # characters of one message; a whole book would make the file unreadable


def write_report(
    path: Path,
    result: Mapping[str, Any],
    scored: Mapping[str, Sequence[Scored]],
    samples: Sequence[Sample],
    dataset: MemoryDataset,
    config: RunConfig,
) -> None:
    """Write the report of ``result``, which evaluation.json holds too, with examples of ``samples`` to ``path``."""
    chosen = choose_examples(samples, scored["memory"], config.evaluate.examples)
    html = render_template(
        _TEMPLATE,
        result={**dict.fromkeys([*VARIANTS, "transcription"]), **result},
        rows=[{"key": key, **variant._asdict(), **result[key]} for key, variant in VARIANTS.items() if key in result],
        phrasings=[{"name": PHRASINGS[key], **group} for key, group in result.get("phrasings", {}).items()],
        charts=_charts(result, config),
        examples=[_example(sample, scored, dataset) for sample in chosen],
        config=config,
        verdict=_unbroken(result["verdict"]["sentence"]),
        warnings=[_unbroken(text) for text in result["warnings"] if text != result["verdict"]["sentence"]],
        percent=lambda share: _unbroken(percent(share)),
        milliseconds=_milliseconds,
    )
    write_text(path, html)


def choose_examples(samples: Sequence[Sample], memory: Sequence[Scored], count: int) -> list[Sample]:
    """Choose samples to show: wrong answers first, up to a third of ``count``, then right ones, evenly spaced."""
    right_by_id = {result.sample_id: result.right for result in memory}
    wrong = [sample for sample in samples if not right_by_id[sample.id]]
    right = [sample for sample in samples if right_by_id[sample.id]]
    failures = min(len(wrong), count // 3 if right else count)
    return evenly_spaced(wrong, failures) + evenly_spaced(right, count - failures)


def training_curve(path: Path) -> list[tuple[float, float]]:
    """Read step and loss from the table that `ocrmem train` writes; empty where there is none."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as handle:
        return [(float(row["step"]), float(row["loss"])) for row in csv.DictReader(handle)]


def _charts(result: Mapping[str, Any], config: RunConfig) -> dict[str, Markup | None]:
    found = {key: variant.name for key, variant in VARIANTS.items() if key in result}
    recall, loss = ([(name, result[key][figure]) for key, name in found.items()] for figure in ("recall", "loss"))
    squeezed, unit = result["compression"]["histogram"], "history text tokens per memory token"
    points = training_curve(config.paths.report(TRAINING_CURVE))
    return {
        "recall": bar_chart(recall, title="Recall of each variant", top=1.0),
        "loss": bar_chart(loss, title="Loss of each variant"),
        "compression": histogram(**squeezed, title="Samples by compression ratio", unit=unit),
        "training": line_chart(points, title="Training loss", x_name="step") if len(points) > 1 else None,
    }


def _example(sample: Sample, scored: Mapping[str, Sequence[Scored]], dataset: MemoryDataset) -> dict[str, Any]:
    pages = [dataset.page(name) for name in sample.pages[-_PAGES_SHOWN:]]
    return {
        "id": sample.id,
        "question": _shorten(sample.prompt[-1].content),
        "answer": _shorten(sample.answer),
        "history": [{"role": m.role, "content": _shorten(m.content)} for m in sample.history],
        "history_tokens": sample.history_tokens,
        "memory_tokens": sample.memory_tokens,
        "page_count": len(sample.pages),
        "pages": [{"uri": png_address(page.png()), "size": page.size} for page in pages],
        "outputs": [
            {"name": variant.name, "said": _shorten(one.said), "right": one.right, "contains": one.contains}
            for key, variant in VARIANTS.items()
            for one in scored.get(key, ())
            # Counterfactual samples have ids of their own; the rest share the sample's.
            if one.sample_id == sample.id and key != "counterfactual"
        ],
    }


def _unbroken(text: str) -> str:
    """Keep a number and its unit in one line."""
    return re.sub(r"(?<=\d) (?=%|m?s\b)", "\u00a0", text)


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + " (cut here)"


def _milliseconds(seconds: float) -> str:
    return _unbroken(f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s")
