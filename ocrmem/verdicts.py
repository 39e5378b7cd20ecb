"""What a run's figures come down to: whether memory helps, and what makes the run mean less than it seems.

Every verb that reads a dataset or an evaluation says it again, in its summary, its JSON and its report: computed here,
from the counts in the dataset's manifest and the figures of evaluation.json.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypedDict

MOST_UNKNOWN = 0.2  # share of the text's tokens
_SMALL = 0.1  # share of answers: a smaller difference is none worth the memory


class Verdict(TypedDict):
    """Whether memory helps, as a word and as a sentence with the figures."""

    state: Literal["helps", "does not help", "unclear"]
    sentence: str


def warning_lines(warnings: Iterable[str]) -> list[str]:
    """Return warnings as the lines of a summary."""
    return [f"warning: {warning}" for warning in warnings]


def dataset_warnings(counts: Mapping[str, Any]) -> list[str]:
    """Say what makes a dataset less than it seems.

    Args:
        counts: as in a dataset's manifest; of those that are not there (an earlier ocrmem, `validate`) nothing is said.
    """
    warnings = []
    if (unknown := _share(counts, "unknown_tokens", of="content_tokens")) > MOST_UNKNOWN:
        warnings.append(
            f"{percent(unknown)} of the text's tokens are unknown to the base model's tokenizer: the model can neither "
            "read nor say them. Name a base model that knows the language (model.base_model_name)"
        )
    dropped, shown = counts.get("dropped_pages", 0), counts.get("pages", 0)
    if dropped:
        lost = "most of the text is not in memory" if dropped > shown else "what they say is not in memory"
        warnings.append(
            f"{dropped:,} of {dropped + shown:,} pages are dropped, the oldest of each history (render.max_pages): "
            f"{lost}. Raise render.max_pages, or put more on a page"
        )
    if tokens := counts.get("dropped_tokens", 0):
        warnings.append(
            f"{tokens:,} text tokens are dropped, the oldest of their samples. Raise model.max_seq_length, or lower "
            "model.context_threshold"
        )
    if memory := counts.get("memory_tokens", 0):
        ratio = counts["history_tokens"] / memory
        if ratio < 1:
            warnings.append(
                f"memory takes more tokens than the text that it stands for ({ratio:.2f} text tokens per memory "
                "token). Put more on a page (render.line_height, render.newlines), or raise model.context_threshold"
            )
    return warnings


def evaluation_warnings(verdict: Verdict) -> list[str]:
    """Say what makes an evaluation mean less than it seems: that memory does not help, or that nobody can tell."""
    return [] if verdict["state"] == "helps" else [verdict["sentence"]]


def memory_verdict(evaluation: Mapping[str, Any]) -> Verdict:
    """Compare memory with the better of another conversation's memory and none, in exact answers or in what is said.

    The difference's 95 % interval decides, made of both shares' intervals (R. G. Newcombe, 1998, method 10): above zero
    memory helps; below ten points it does not; otherwise there are too few samples to say.

    Args:
        evaluation: as in evaluation.json: `memory`, `shuffled` and `no_memory` with their shares and intervals.
    """
    both = [_Comparison.of(evaluation, figure) for figure in ("recall", "said")]
    compared = max(both, key=lambda one: ("does not help", "unclear", "helps").index(one.state))
    return {"state": compared.state, "sentence": compared.sentence()}


def percent(share: float) -> str:
    """Return a share in whole per cent, with a decimal where it would look like none or all."""
    text = f"{share * 100:.0f} %"
    return f"{share * 100:.1f} %" if text in ("0 %", "100 %") and share not in (0.0, 1.0) else text


class _Comparison(NamedTuple):
    """A figure with memory beside the best that it must beat; ``low`` and ``high`` are of the difference."""

    figure: str
    samples: int
    memory: float
    control: str
    other: float
    low: float
    high: float

    @classmethod
    def of(cls, evaluation: Mapping[str, Any], figure: str) -> _Comparison:
        memory, control = evaluation["memory"], max(("shuffled", "no_memory"), key=lambda key: evaluation[key][figure])
        share, other = memory[figure], evaluation[control][figure]
        (low, high), (other_low, other_high) = (row[f"{figure}_interval"] for row in (memory, evaluation[control]))
        difference = share - other
        return cls(
            figure,
            memory["samples"],
            share,
            control,
            other,
            difference - math.hypot(share - low, other_high - other),
            difference + math.hypot(high - share, other - other_low),
        )

    @property
    def state(self) -> Literal["helps", "does not help", "unclear"]:
        if self.low > 0:
            return "helps"
        return "does not help" if self.high < _SMALL else "unclear"

    def sentence(self) -> str:
        control = {"shuffled": "another conversation's pages", "no_memory": "the model without memory"}[self.control]
        does = "recalls" if self.figure == "recall" else "lets the model say"
        sentence = f"Memory {does} {percent(self.memory)} of held-out facts, {control} {percent(self.other)}"
        if self.state == "helps":
            return f"{sentence}: it helps{' little' if self.high < _SMALL else ''}"
        if self.state == "unclear":
            return f"{sentence}: {self.samples} samples are too few to say whether it helps"
        alike = "right and wrong pages score alike" if self.control == "shuffled" else "it knows no more with pages"
        return f"{sentence}: {alike if self.high > 0 else 'the right pages score worse'}, so memory does not help"


def _share(counts: Mapping[str, Any], name: str, *, of: str) -> float:
    return counts.get(name, 0) / (counts.get(of, 0) or 1)
