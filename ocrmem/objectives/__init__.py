"""What proj can be trained on: an objective makes batches of the training samples, and their loss.

A stage of the training (``train.stages``) names one of these or mixes several; each is one file.
"""

from __future__ import annotations

from collections.abc import Iterable

from ocrmem.objectives.align import Align
from ocrmem.objectives.answer import Answer
from ocrmem.objectives.continue_text import Continue
from ocrmem.objectives.distil import Distil
from ocrmem.objectives.objective import Material, Objective
from ocrmem.objectives.transcribe import Transcribe

__all__ = ["OBJECTIVES", "Material", "Objective", "make_objectives"]

OBJECTIVES: dict[str, type[Objective]] = {kind.name: kind for kind in (Align, Transcribe, Continue, Answer, Distil)}


def make_objectives(names: Iterable[str], material: Material) -> dict[str, Objective]:
    """Return the objectives of these names, each once, in their first order.

    Raises:
        DataError: the training samples hold nothing for one of them.
    """
    return {name: OBJECTIVES[name](material) for name in dict.fromkeys(names)}
