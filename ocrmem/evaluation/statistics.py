"""Loss, recall and compression over scored samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypedDict, TypeVar

import numpy as np

from ocrmem.dataset.schema import Sample
from ocrmem.evaluation.scoring import Scored
from ocrmem.families import with_marks

T = TypeVar("T")
_Z95 = 1.959964  # two-sided 95 % of the normal distribution
_BINS = 12
_PERCENTILES = (5, 25, 50, 75, 95)


class Figures(TypedDict):
    """One variant's figures."""

    loss: float  # mean negative log likelihood over all answers' tokens
    recall: float  # share of answers that are exactly the right one
    recall_interval: list[float]  # its 95 % interval
    said: float  # share of answers in which the right one occurs
    said_interval: list[float]  # its 95 % interval
    correct: int
    samples: int
    sequence_tokens: float  # mean length of the sequence in front of the answer


def figures(scored: Sequence[Scored]) -> Figures:
    """Compute a variant's figures."""
    correct, said = sum(result.right for result in scored), sum(result.contains for result in scored)
    tokens = sum(result.answer_tokens for result in scored)
    return {
        "loss": round(sum(result.loss_sum for result in scored) / tokens, 6),
        "recall": round(correct / len(scored), 6),
        "recall_interval": wilson(correct, len(scored)),
        "said": round(said / len(scored), 6),
        "said_interval": wilson(said, len(scored)),
        "correct": correct,
        "samples": len(scored),
        "sequence_tokens": round(sum(result.tokens for result in scored) / len(scored), 2),
    }


def wilson(correct: int, total: int) -> list[float]:
    """Return Wilson's score interval at 95 % (E. B. Wilson, 1927), low and high."""
    share, square = correct / total, _Z95**2
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = _Z95 / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    return [round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)]


def compression(samples: Sequence[Sample]) -> dict[str, Any]:
    """Compute how many text tokens a memory token stands for.

    Text tokens are those of the history as chat turns, the template's own included, whose text is on the sample's
    pages. Memory tokens are all that memory puts into the sequence, its two marks included. ``ratio`` is over all
    samples together.
    """
    text = sum(sample.text_tokens for sample in samples)
    memory = sum(with_marks(sample.memory_tokens) for sample in samples)
    ratios = np.array([sample.compression_ratio for sample in samples])
    counts, edges = np.histogram(ratios, bins=_BINS)
    return {
        "ratio": round(text / memory, 4),
        "history_tokens": text,
        "memory_tokens": memory,
        "min": round(float(ratios.min()), 4),
        "max": round(float(ratios.max()), 4),
        "percentiles": {str(p): round(float(np.percentile(ratios, p)), 4) for p in _PERCENTILES},
        "histogram": {"edges": [round(float(edge), 4) for edge in edges], "counts": counts.tolist()},
        "samples_with_dropped_pages": sum(sample.dropped_pages > 0 for sample in samples),
    }


def evenly_spaced(things: Sequence[T], wanted: int | None) -> list[T]:
    """Choose ``wanted`` things, evenly spaced; all of them where there are no more, or for None."""
    if wanted is None or wanted >= len(things):
        return list(things)
    return [things[index * len(things) // wanted] for index in range(wanted)]
