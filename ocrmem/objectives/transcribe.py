"""The objective ``transcribe``: memory, an instruction to repeat it, and as the answer what is written on the pages.

Every token of the text is supervised, where an answer supervises ten: proj learns to let the language model read
before it learns what to do with what was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np
import torch

from ocrmem.conversations import Message
from ocrmem.dataset.schema import Sample
from ocrmem.families import with_marks
from ocrmem.objectives.objective import Material, Objective
from ocrmem.objectives.page_texts import PageTexts


class Transcribe(Objective):
    """Samples with memory; their text and their pages in one sequence of at most ``model.max_seq_length`` tokens.

    Where all pages do not fit, the newest that do are taken; where the text of one page does not, its beginning.
    """

    name = "transcribe"

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self.texts = PageTexts(material.dataset)

    @property
    def instruction(self) -> str:
        return self.material.config.train.transcribe_instruction

    def lengths(self) -> np.ndarray:
        samples = self.material.samples
        pictured, history = samples.column("pictured_tokens"), samples.column("history_tokens")
        text = np.where(pictured < 0, history, pictured)
        return np.minimum(text + samples.column("memory_tokens"), self.material.builder.max_seq_length)

    def __call__(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """Collate samples; see `Objective`."""
        return self.collator([self.reading(sample) for sample in samples])

    def reading(self, sample: Sample) -> Sample:
        """Return the sample that asks for the text of its pages instead of its answer."""
        texts = self.texts.pages(sample)
        for first in range(len(texts)):
            pages, text = sample.pages[first:], "".join(texts[first:])
            if self._room(sample, pages, text) >= 0:
                return self._asking(sample, pages, text)
        return self._asking_for_the_beginning(sample, sample.pages[-1:], texts[-1])

    def _asking(self, sample: Sample, pages: tuple[str, ...], text: str) -> Sample:
        return replace(
            sample, prompt=self._prompt(sample), answer=text, pages=pages, memory_tokens=self._memory_tokens(pages)
        )

    def _asking_for_the_beginning(self, sample: Sample, pages: tuple[str, ...], text: str) -> Sample:
        """Cut the text behind a word, as late as it fits."""
        encode = self.material.builder.encode_content
        room = len(encode(text)) + self._room(sample, pages, text)
        short, long = 0, len(text)
        while long - short > 1:
            middle = (short + long) // 2
            short, long = (middle, long) if len(encode(text[:middle])) <= room else (short, middle)
        return self._asking(sample, pages, text[: text.rfind(" ", 0, short) + 1] or text[:short])

    def _room(self, sample: Sample, pages: tuple[str, ...], text: str) -> int:
        """Return how many tokens are left over in a sequence; negative where it is too long."""
        builder = self.material.builder
        frame = len(builder.build(self._prompt(sample), "").input_ids)
        memory = with_marks(self._memory_tokens(pages))
        return builder.max_seq_length - frame - memory - len(builder.encode_content(text))

    def _prompt(self, sample: Sample) -> tuple[Message, ...]:
        opening = takewhile(lambda message: message.role == "system", sample.prompt)
        return (*opening, Message("user", self.instruction))

    def _memory_tokens(self, pages: tuple[str, ...]) -> int:
        return sum(int(self.material.dataset.kept(page).sum()) for page in pages)
