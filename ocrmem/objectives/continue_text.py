"""The objective ``continue``: memory of all pages but the last, whose text is the answer."""

from __future__ import annotations

import numpy as np

from ocrmem.dataset.schema import Sample
from ocrmem.objectives.transcribe import Transcribe


class Continue(Transcribe):
    """Samples of two pages and more. Where the sequence would be too long, the oldest pages are left out."""

    name = "continue"
    needs = "memory of two pages or more (render.max_pages)"

    @property
    def instruction(self) -> str:
        return self.material.config.train.continue_instruction

    def eligible(self) -> np.ndarray:
        return np.flatnonzero(self.material.samples.page_counts() > 1)

    def reading(self, sample: Sample) -> Sample:
        """Return the sample that asks for the text of its last page instead of its answer."""
        text, before = self.texts.pages(sample)[-1], sample.pages[:-1]
        while len(before) > 1 and self._room(sample, before, text) < 0:
            before = before[1:]
        if self._room(sample, before, text) < 0:
            return self._asking_for_the_beginning(sample, before, text)
        return self._asking(sample, before, text)
