"""How much of its pages' text the model writes out, asked as the objective ``transcribe`` asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import TypedDict

import torch

from ocrmem.dataset.schema import Sample
from ocrmem.evaluation.baselines import CaseMaker
from ocrmem.evaluation.scoring import Case, Scorer
from ocrmem.objectives import Material, Transcribe


class Transcription(TypedDict):
    """Shares of the ``characters`` on the ``pages`` of ``samples`` that were written out, in their order.

    ``memory`` is from the right pages; ``shuffled`` from another conversation's, which is what chance and the
    language give.
    """

    samples: int
    pages: int
    characters: int
    memory: float
    shuffled: float


def measure_transcription(
    material: Material,
    samples: Sequence[Sample],
    others: Sequence[Sample],
    features: Callable[[Sample], torch.Tensor],
    maker: CaseMaker,
    scorer: Scorer,
) -> Transcription:
    """Ask for the text of each sample's pages, and compare it with what greedy decoding gives.

    Args:
        material: of the held-out samples.
        samples: with memory.
        others: beside each, one of another conversation.
        features: gives a sample's vision tokens, float32 [m, d].
        maker: of cases.
        scorer: whose ``max_new_tokens`` does not bound these answers: the longest right one does.

    Raises:
        DataError: the histories are no longer drawn as the dataset's pages were.
    """
    reading = Transcribe(material).reading
    asked = [reading(sample) for sample in samples]
    right = [maker.with_memory(one, features(one)) for one in asked]
    wrong = [maker.with_other_memory(one, features(reading(other))) for one, other in zip(asked, others, strict=True)]
    writer = replace(scorer, max_new_tokens=max(case.supervised.answer_tokens for case in right))
    characters = sum(len(_plain(one.answer)) for one in asked)
    return {
        "samples": len(asked),
        "pages": sum(len(one.pages) for one in asked),
        "characters": characters,
        "memory": round(_written(writer, right) / characters, 6),
        "shuffled": round(_written(writer, wrong) / characters, 6),
    }


def characters_in_common(said: str, text: str) -> int:
    """Return how many characters of a text are said, in its order; white space of any length is one character."""
    matcher = SequenceMatcher(None, _plain(text), _plain(said), autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks())


def _written(scorer: Scorer, cases: Sequence[Case]) -> int:
    found = 0
    for start in range(0, len(cases), scorer.batch_size):
        batch = cases[start : start + scorer.batch_size]
        said = scorer.answers(batch)
        found += sum(characters_in_common(text, case.answer) for text, case in zip(said, batch, strict=True))
    return found


def _plain(text: str) -> str:
    return " ".join(text.split())
