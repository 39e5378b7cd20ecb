"""What is written on a sample's pages: its history laid out again, and compared with the pages."""

from __future__ import annotations

from typing import Any

import numpy as np

from ocrmem.config import RenderSection
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.schema import Sample
from ocrmem.errors import DataError
from ocrmem.rendering.history import HistoryRenderer, MemoryText


class PageTexts:
    """Finds the text of samples' pages, which the shards do not hold: the histories' messages do.

    Args:
        dataset: whose render settings are used.
    """

    def __init__(self, dataset: MemoryDataset) -> None:
        self.dataset = dataset
        self._renderer = HistoryRenderer(RenderSection.model_validate(dataset.manifest["config"]["render"]))

    def __reduce__(self) -> tuple[Any, ...]:
        return (PageTexts, (self.dataset,))

    def under_tokens(self, sample: Sample) -> MemoryText:
        """Return the text under each vision token of the sample's pages.

        Raises:
            DataError: this version of ocrmem draws other pages of the history than the dataset has.
        """
        found = self._renderer.under_tokens(sample.history)
        if tuple(page.hash for page in found.pages) != sample.pages:
            raise DataError.of(
                f"sample {sample.id}",
                "its history is no longer drawn as the dataset's pages were, so what is written on them is not known",
                "Run `ocrmem render` and `ocrmem encode` again",
            )
        return found

    def pages(self, sample: Sample) -> list[str]:
        """Return the text of each of the sample's pages; raises as `under_tokens` does."""
        found = self.under_tokens(sample)
        pages = found.spans.tokens // found.spans.tokens_per_page
        firsts = np.searchsorted(pages, np.arange(len(sample.pages)))
        lasts = np.searchsorted(pages, np.arange(len(sample.pages)), side="right") - 1
        spans = found.spans.spans
        return [found.text[spans[a, 0] : spans[b, 1]] for a, b in zip(firsts.tolist(), lasts.tolist(), strict=True)]
