"""evaluation.json for the code that reads it: names, the metrics that do not vary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EVALUATION = "evaluation.json"

# What each variant puts in front of the question; the order of tables and plots.
VARIANTS = {
    "memory": "the pages of the history, through proj",
    "no_memory": "nothing: the prompt alone",
    "shuffled": "the pages of another conversation",
    "truncated": "the last history tokens as text, as many as memory takes",
    "mean_pooled": "the history's token embeddings, averaged into as many slots as memory has",
    "full_text": "the whole history as chat turns",
    "base_text": "the same, read by the language model without the adapter's LoRA",
    "counterfactual": "pages on which only the asked value differs; that value is the right answer",
    "untrained": "the pages of the history, through a freshly initialised proj, without LoRA",
    "random_encoder": "the pages of the history, read by a freshly initialised encoder",
    "scrambled": "pages on which the words of all other messages than the answer's are shuffled",
}


def metrics_of(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of evaluation.json that is the same on every run: no times, no examples."""
    found = [name for name in VARIANTS if name in evaluation]
    metrics = {name: {key: evaluation[name][key] for key in ("loss", "recall")} for name in found}
    return metrics | {key: evaluation.get(key) for key in ("compression_ratio", "samples")}
