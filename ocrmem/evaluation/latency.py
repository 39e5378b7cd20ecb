"""The time from text to answer, step by step, by memory and by full text.

Nothing stored is used: a history is drawn, encoded, read by the language model and answered, as for a user.
Times are of this machine and vary; they are medians over the samples after one unmeasured run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from ocrmem.config import RunConfig
from ocrmem.dataset.schema import Sample
from ocrmem.encoder.page_encoding import Encoder, encode_kept_tokens
from ocrmem.evaluation.baselines import CaseMaker
from ocrmem.evaluation.scoring import Case, Scorer
from ocrmem.rendering.history import HistoryRenderer

T = TypeVar("T")


@dataclass
class Stopwatch:
    """Times named steps in seconds, and waits for the device before it reads the clock."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    def time(self, step: str, work: Callable[[], T]) -> T:
        self._wait()
        start = time.perf_counter()
        result = work()
        self._wait()
        self.seconds[step] = time.perf_counter() - start
        return result

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measure_latency(
    samples: Sequence[Sample], scorer: Scorer, maker: CaseMaker, encoder: Encoder, config: RunConfig
) -> dict[str, Any]:
    """Time each sample alone, by memory and by full text.

    Returns:
        ``memory`` and ``full_text``: median seconds of each step and of their sum (``total``); ``samples``,
        ``device``, ``new_tokens``: the length of each generated answer, which is the same for both.
    """
    device, dropping = scorer.model.device, config.model.drop_blank_tokens

    def by_memory(sample: Sample, watch: Stopwatch) -> Case:
        pages = watch.time("render", lambda: HistoryRenderer(config.render).draw(sample.history).pages)
        features = watch.time(
            "encode", lambda: torch.cat(encode_kept_tokens(encoder, pages, drop_blank_tokens=dropping))
        )
        return maker.with_memory(sample, features)

    def by_text(sample: Sample, watch: Stopwatch) -> Case:
        return maker.full_text(sample)

    def timed(sample: Sample, prepare: Callable[[Sample, Stopwatch], Case]) -> dict[str, float]:
        """Time reading the sequence, and then writing as many tokens as the right answer has."""
        watch = Stopwatch(device)
        case = prepare(sample, watch)
        watch.time("prefill", lambda: scorer.write(case, 1))
        watch.time("generate", lambda: scorer.write(case, sample.answer_tokens))
        # `write` reads the sequence again before its first token.
        watch.seconds["generate"] = max(0.0, watch.seconds["generate"] - watch.seconds["prefill"])
        return watch.seconds | {"total": sum(watch.seconds.values())}

    result: dict[str, Any] = {"device": device.type, "samples": len(samples)}
    for name, prepare in (("memory", by_memory), ("full_text", by_text)):
        timed(samples[0], prepare)
        rows = [timed(sample, prepare) for sample in samples]
        result[name] = {step: round(statistics.median(row[step] for row in rows), 6) for step in rows[0]}
    result["new_tokens"] = statistics.mean(sample.answer_tokens for sample in samples)
    return result
