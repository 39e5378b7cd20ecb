"""evaluation.json for the code that reads it: names, the metrics that do not vary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

EVALUATION = "evaluation.json"
METRICS = ("loss", "recall", "said")


class Variant(NamedTuple):
    """A variant for a person: its name, and what it puts in front of the question."""

    name: str
    meaning: str


# By their names in evaluation.json, in the order of tables and plots.
VARIANTS = {
    "memory": Variant("the right pages", "the pages of the history, through proj"),
    "no_memory": Variant("no memory", "nothing: the prompt alone"),
    "shuffled": Variant("another conversation's pages", "the pages of a history that is not this one"),
    "truncated": Variant("the end of the text", "the last history tokens as text, as many as memory takes"),
    "mean_pooled": Variant("averaged text", "the history's token embeddings, averaged: as many slots as memory has"),
    "full_text": Variant("the whole text", "the whole history as chat turns"),
    "base_text": Variant("the whole text, no LoRA", "the same, read by the language model without the adapter's LoRA"),
    "counterfactual": Variant(
        "one value changed", "pages on which only the asked value differs; that value is the right answer"
    ),
    "untrained": Variant("untrained proj", "the pages of the history, through a newly initialised proj, without LoRA"),
    "random_encoder": Variant("random encoder", "the pages of the history, read by a newly initialised encoder"),
    "scrambled": Variant(
        "other words shuffled", "pages on which the words of all other messages than the answer's are shuffled"
    ),
    "random_answer": Variant(
        "random letters for the answer", "pages on which six random letters stand for the answer, and are what is right"
    ),
}

# Of ``phrasings`` in evaluation.json: how a question is asked.
PHRASINGS = {"trained": "as in training", "rephrased": "in words that training never used"}


def metrics_of(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of evaluation.json that is the same on every run: no times, no examples."""
    found = {name: evaluation[name] for name in VARIANTS if name in evaluation}
    metrics = {name: {key: row[key] for key in METRICS if key in row} for name, row in found.items()}
    return metrics | {key: evaluation.get(key) for key in ("compression_ratio", "samples")}
