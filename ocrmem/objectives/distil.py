"""The objective ``distil``: with the history as memory, say what the same model says with the history as text.

The teacher is the frozen base model itself, without LoRA. Its most likely tokens at every position of the answer are
computed when a sample comes up for the first time, and stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ocrmem.dataset.schema import Sample
from ocrmem.dataset.sequence import SequenceBuilder, TokenSequence
from ocrmem.facts import IGNORED
from ocrmem.model.lora import without_lora
from ocrmem.model.packing import SAMPLE_LENGTHS, by_sample
from ocrmem.objectives.objective import Batch, Material, Objective
from ocrmem.objectives.teacher_logits import TeacherLogits, TopK

_KEYS, _TEACHER = "teacher_keys", "teacher_"  # of a batch; the second opens the names of the teacher's own input


class Distil(Objective):
    """Samples with memory; kl_weight x KL(teacher, student) + nll_weight x the loss of ``answer``."""

    name = "distil"

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self.store = TeacherLogits(material.teacher, material.process)
        self._identity = ""
        self._builder = material.builder

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "store"}  # batches are made without it

    def prepare(self, model: nn.Module) -> None:
        """Take the teacher's limits and identity."""
        base = cast(Any, model).base_llm_model
        builder, longest = self.material.builder, base.config.get_text_config().max_position_embeddings
        self._builder = SequenceBuilder(builder.tokenizer, longest, family=self.material.config.model.family)
        weights = cast(Any, model).config.base_fingerprint
        self._identity = f"{weights} {base.dtype} {self.material.config.train.distil_top_k}"

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Collate.

        Returns:
            The batch of ``answer``; the same of the teacher's text, with ``teacher_`` before the names; and
            ``teacher_keys``, one a sample.
        """
        reading = [self._builder.build(s.prompt, s.answer, history=s.history) for s in samples]
        batch: dict[str, Any] = {f"{_TEACHER}{name}": value for name, value in self.collator.rows(reading).items()}
        return self.collator(samples) | batch | {_KEYS: [self._key(sequence) for sequence in reading]}

    def inputs(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {name: value for name, value in batch.items() if not name.startswith(_TEACHER)}

    def loss(self, model: nn.Module, batch: Batch, items: Any) -> torch.Tensor:
        """See `Objective.loss`; all processes call this together."""
        section = self.material.config.train
        wanted = self._teacher(model, batch)
        output = model(**self.inputs(batch), num_items_in_batch=items, keep_logits=True)
        log_probs = F.log_softmax(output.logits.float(), dim=-1)
        ids, of_teacher = (
            torch.from_numpy(np.concatenate(part)).to(log_probs.device) for part in zip(*wanted, strict=True)
        )
        of_student = log_probs.gather(1, ids.long())
        # All tokens that are not among the teacher's first k count as one, so that this is a divergence.
        of_teacher, of_student = _with_rest(of_teacher), _with_rest(of_student)
        divergence = (of_teacher.exp() * (of_teacher - of_student)).sum()
        kl = divergence / (len(log_probs) if items is None else items)
        loss: torch.Tensor = section.distil_kl_weight * kl + section.distil_nll_weight * output.loss
        return loss

    def _key(self, sequence: TokenSequence) -> str:
        supervised = [token for token in sequence.labels if token != IGNORED]
        text = f"{self._identity} {len(supervised)} {sequence.input_ids}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _teacher(self, model: nn.Module, batch: Any) -> list[TopK]:
        """Return the teacher's words on each sample, computed now where one of them is missing."""
        keys = batch[_KEYS]
        found = self.store.get(keys)
        if self.material.any_process(any(key not in found for key in keys)):
            computed = self._ask(model, batch)
            # What is stored is used where it is there: a resumed run goes on with the very same numbers.
            missing = {key: top for key, top in zip(keys, computed, strict=True) if key not in found}
            self.store.put(missing)
            found |= missing
        return [found[key] for key in keys]

    @torch.no_grad()
    def _ask(self, model: nn.Module, batch: Any) -> list[TopK]:
        read = {
            name.removeprefix(_TEACHER): value
            for name, value in batch.items()
            if name.startswith(_TEACHER) and name != _KEYS
        }
        with without_lora(model):
            output = model(**read, keep_logits=True)
        top = F.log_softmax(output.logits.float(), dim=-1).topk(
            min(self.material.config.train.distil_top_k, output.logits.shape[-1]), dim=-1
        )
        supervised = (read["labels"] != IGNORED).int()
        counts = [int(part.sum()) for part in by_sample(supervised, read.get(SAMPLE_LENGTHS))]
        parts = zip(top.indices.int().cpu().split(counts), top.values.cpu().split(counts), strict=True)
        return [TopK(ids.numpy(), values.numpy()) for ids, values in parts]


def _with_rest(log_probs: torch.Tensor) -> torch.Tensor:
    """Append the logarithm of what the probabilities leave over: [n, k] -> [n, k + 1]."""
    rest = (1 - log_probs.exp().sum(dim=-1, keepdim=True)).clamp(min=1e-6)
    return torch.cat([log_probs, rest.log()], dim=-1)
