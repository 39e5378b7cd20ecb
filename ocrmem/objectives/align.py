"""The objective ``align``: proj's output is to be what the language model reads for the text under a vision token.

proj(features of a vision token) is regressed on the mean of the base model's own input embeddings of the text tokens
that end under it. No language model runs, so a step costs next to nothing, and it puts proj's outputs where the
language model already reads: the stages after it start from there. Only a renderer knows that text exactly.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from ocrmem.dataset.schema import Sample
from ocrmem.errors import ModelError
from ocrmem.facts import PROJ
from ocrmem.gradflow import Report, check
from ocrmem.model.embedding_scale import embedding_mean_square
from ocrmem.model.trainable import lora_of
from ocrmem.objectives.objective import Batch, Material, Objective
from ocrmem.objectives.page_texts import PageTexts
from ocrmem.rendering.page import pixel_batch

_CACHED_TOKENS = 8_000_000  # of text; 12 bytes each


class _Under(NamedTuple):
    """The text tokens of one page that end under a vision token with ink, grouped by vision token."""

    seen: np.ndarray  # bool [tokens of a page]; which vision tokens have text
    ids: np.ndarray  # int64 [t]; text tokens, of one vision token after the other
    lengths: np.ndarray  # int64 [vision tokens with text]; how many each has


class Align(Objective):
    """Samples with memory."""

    name = "align"

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        if not material.builder.tokenizer.is_fast:
            raise ModelError.of(
                "model.base_model_name",
                "its tokenizer does not say which characters a token stands for, which align needs",
                "Use a base model with a tokenizer.json, or leave align out of train.stages",
            )
        self.texts = PageTexts(material.dataset)
        self.scale = 1.0
        self._cache: OrderedDict[str, list[_Under]] = OrderedDict()
        self._cached_tokens = 0

    def lengths(self) -> np.ndarray:
        return self.material.samples.column("memory_tokens")

    def __call__(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """Collate.

        Returns:
            ``memory_features`` [M, d] of the vision tokens that have text (or ``pixel_values`` and ``page_kept``),
            ``text_ids`` long [T] and ``text_lengths`` long [M].
        """
        pages = [page for sample in samples for page in sample.pages]
        under = [page for sample in samples for page in self._under(sample)]
        batch = {
            "text_ids": torch.from_numpy(np.concatenate([page.ids for page in under])),
            "text_lengths": torch.from_numpy(np.concatenate([page.lengths for page in under])),
        }
        seen, material = [page.seen for page in under], self.material
        if material.features is not None:
            return batch | {"memory_features": material.features.gather(pages, seen)}
        pixels = pixel_batch([material.dataset.page(page) for page in pages])
        return batch | {"pixel_values": torch.from_numpy(pixels), "page_kept": torch.from_numpy(np.stack(seen))}

    def items(self, batch: Batch) -> int:
        """Return the vision tokens."""
        return len(batch["text_lengths"])

    def prepare(self, model: nn.Module) -> None:
        """Measure the mean square of the base model's input embeddings, the unit of the loss.

        A constant, so that a step's loss does not depend on how its batch is cut into processes.
        """
        self.scale = embedding_mean_square(cast(Any, model).get_input_embeddings())

    def loss(self, model: nn.Module, batch: Batch, items: Any) -> torch.Tensor:
        """Return the mean squared error in units of the embeddings' mean square: an output of zeros has about 1."""
        return super().loss(model, batch, items) / self.scale

    def check(self, model: nn.Module, batch: Batch) -> Report:
        """Check proj alone: LoRA, in the language model that does not run, gets a gradient of zeros."""
        waiting = lora_of(model).values()
        for weight in waiting:
            weight.requires_grad_(False)
        try:
            return check(model, self.inputs(batch), PROJ)
        finally:
            for weight in waiting:
                weight.requires_grad_(True)

    def _under(self, sample: Sample) -> list[_Under]:
        """Return what ends under the vision tokens of each of the sample's pages."""
        found = self._cache.get(sample.id)
        if found is None:
            found = self._cache[sample.id] = self._find(sample)
            self._cached_tokens += sum(len(page.ids) for page in found)
            while self._cached_tokens > _CACHED_TOKENS and len(self._cache) > 1:
                self._cached_tokens -= sum(len(page.ids) for page in self._cache.popitem(last=False)[1])
        return found

    def _find(self, sample: Sample) -> list[_Under]:
        memory = self.texts.under_tokens(sample)
        start = int(memory.spans.spans[0, 0])
        encoded = self.material.builder.tokenizer(
            memory.text[start:],
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
            verbose=False,
        )
        ids, offsets = np.array(encoded["input_ids"], np.int64), np.array(encoded["offset_mapping"], np.int64)
        # The last character of each; a token without characters (a byte of a character, say) has none behind it.
        last = np.maximum(offsets[:, 0], offsets[:, 1] - 1) + start
        places = memory.spans.at(last)
        size, pages = memory.spans.tokens_per_page, []
        for number, page in enumerate(sample.pages):
            kept = self.material.dataset.kept(page)
            tokens = places - number * size
            here = (tokens >= 0) & (tokens < size)
            here[here] = kept[tokens[here]]
            order = np.argsort(tokens[here], kind="stable")
            counts = np.bincount(tokens[here], minlength=size)
            pages.append(_Under(counts > 0, ids[here][order], counts[counts > 0]))
        return pages
