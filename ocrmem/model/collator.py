"""Collate samples into the keyword arguments of `MEMModel.forward` and `MEMModel.generate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ocrmem.dataset.schema import Sample
from ocrmem.dataset.sequence import SequenceBuilder, TokenSequence
from ocrmem.errors import DataError
from ocrmem.facts import IGNORED
from ocrmem.model.packing import pack
from ocrmem.rendering.page import pixel_batch

if TYPE_CHECKING:
    from ocrmem.dataset.memory_dataset import MemoryDataset
    from ocrmem.encoder.feature_store import FeatureStore


@dataclass(eq=False)
class MemoryCollator:
    """Collates samples with and without memory into one batch.

    Args:
        builder: makes token sequences; its ``max_seq_length`` holds.
        dataset: where the samples' pages are.
        features: the encoded pages; None puts the pages themselves into the batch, for a model with an
            encoder attached.
        for_generation: end every row with the generation prompt, pad on the left, give no labels.
        packing: lay the samples one behind the other in a single row instead of padding them.
    """

    builder: SequenceBuilder
    dataset: MemoryDataset
    features: FeatureStore | None
    for_generation: bool = False
    packing: bool = False

    def __call__(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """Collate.

        Returns:
            ``input_ids`` and ``attention_mask`` long [B, L]; ``labels`` long [B, L] unless for generation; with
            packing what `pack` gives instead; and if any sample has memory, ``memory_features`` [M, d] in the
            store's dtype, or ``pixel_values`` float32 [P, 3, S, S] with ``page_kept`` bool [P, n]. Memory is in
            batch order.

        Raises:
            DataError: a sample's pages do not give the memory tokens that it was made with.
        """
        batch = self.rows([self.sequence(sample) for sample in samples])
        if self.for_generation:
            del batch["labels"]
        return batch | self.memory(samples)

    def rows(self, sequences: Sequence[TokenSequence]) -> dict[str, torch.Tensor]:
        """Return the part of the batch that is text, padded or packed."""
        if self.packing:
            return pack(sequences)
        return pad_sequences(sequences, self.pad_token_id, left=self.for_generation)

    @property
    def pad_token_id(self) -> int:
        """Return the tokenizer's padding; any token would do, since the attention mask hides it."""
        return self.builder.tokenizer.pad_token_id or 0

    def sequence(self, sample: Sample) -> TokenSequence:
        """Return a sample's tokens: history as memory where it has pages, else as text."""
        return self.builder.build(
            sample.prompt,
            None if self.for_generation else sample.answer,
            memory_tokens=sample.memory_tokens,
            history=() if sample.has_memory else sample.history,
        )

    def memory(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """Return the part of the batch that fills the placeholders; empty where no sample has memory."""
        pages: list[str] = []
        kept: list[np.ndarray] = []
        for sample in samples:
            masks = [self.dataset.kept(page) for page in sample.pages]
            found = sum(int(mask.sum()) for mask in masks)
            if found != sample.memory_tokens:
                raise DataError.of(
                    f"sample {sample.id}",
                    f"was made with {sample.memory_tokens} memory tokens, but its pages now give {found}",
                    "Run `ocrmem render` again",
                )
            pages += sample.pages
            kept += masks
        if not pages:
            return {}
        if self.features is not None:
            return {"memory_features": self.features.gather(pages, kept)}
        return {
            "pixel_values": torch.from_numpy(pixel_batch([self.dataset.page(page) for page in pages])),
            "page_kept": torch.from_numpy(np.stack(kept)),
        }


def pad_sequences(sequences: Sequence[TokenSequence], pad: int, *, left: bool) -> dict[str, torch.Tensor]:
    """Pad token sequences to ``input_ids``, ``attention_mask`` and ``labels``, long [B, L] each."""
    length = max(len(sequence.input_ids) for sequence in sequences)
    shape = (len(sequences), length)
    ids = torch.full(shape, pad)
    labels = torch.full(shape, IGNORED)
    mask = torch.zeros(shape, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        size = len(sequence.input_ids)
        place = slice(length - size, length) if left else slice(0, size)
        ids[row, place] = torch.tensor(sequence.input_ids)
        labels[row, place] = torch.tensor(sequence.labels)
        mask[row, place] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
