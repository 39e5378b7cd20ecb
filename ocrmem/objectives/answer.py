"""The objective ``answer``: the assistant's turn, with the history as memory or, where it is short, as text."""

from __future__ import annotations

import numpy as np

from ocrmem.objectives.objective import Objective


class Answer(Objective):
    """All training samples, with memory and without."""

    name = "answer"
    needs = "an answer"

    def eligible(self) -> np.ndarray:
        return np.arange(len(self.material.samples))
