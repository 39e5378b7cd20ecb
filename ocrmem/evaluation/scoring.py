"""Running the model on prepared cases: the loss of the right answer, and what greedy decoding says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ocrmem.dataset.sequence import TokenSequence
from ocrmem.facts import IGNORED
from ocrmem.model.collator import pad_sequences
from ocrmem.model.modeling import MEMModel


@dataclass(frozen=True)
class Case:
    """One question as the model gets it.

    Attributes:
        sample_id: of the sample that it was made from.
        supervised: prompt and right answer, for the loss.
        question: the same up to the generation prompt, for the recall.
        answer: the right answer.
        features: vision tokens for the placeholders [m, d], or None.
        embeddings: ready embeddings for the placeholders [m, H], or None.
    """

    sample_id: str
    supervised: TokenSequence
    question: TokenSequence
    answer: str
    features: torch.Tensor | None = None
    embeddings: torch.Tensor | None = None


@dataclass(frozen=True)
class Scored:
    """What the model made of a case.

    Attributes:
        loss_sum: negative log likelihood of the answer's tokens, end token included, summed.
        answer_tokens: how many those are.
        said: what greedy decoding gave.
        right: whether that is the answer, white space aside.
        tokens: length of the sequence that the model read, without the answer.
    """

    sample_id: str
    loss_sum: float
    answer_tokens: int
    said: str
    right: bool
    tokens: int


class Scorer:
    """Scores cases in batches.

    Args:
        model: with proj loaded; no encoder is needed.
        tokenizer: of its language model.
        end_token_id: ends an answer.
        batch_size: cases at once.
        max_new_tokens: most tokens of a generated answer.
    """

    def __init__(
        self,
        model: MEMModel,
        tokenizer: PreTrainedTokenizerBase,
        end_token_id: int,
        *,
        batch_size: int,
        max_new_tokens: int,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.end_token_id = end_token_id
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        pad = tokenizer.pad_token_id
        self._pad = end_token_id if pad is None else pad

    def score(self, cases: Sequence[Case], done: Callable[[int], None] = lambda count: None) -> list[Scored]:
        """Compute loss and answer of every case, in the order given.

        Args:
            cases: any number; those of like length are run together.
            done: called with the number of cases of each finished batch.
        """
        order = sorted(range(len(cases)), key=lambda index: len(cases[index].supervised.input_ids))
        results: dict[int, Scored] = {}
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            batch = [cases[index] for index in chosen]
            scored = zip(self._losses(batch), self.answers(batch), batch, strict=True)
            for index, (loss, said, case) in zip(chosen, scored, strict=True):
                results[index] = Scored(
                    case.sample_id,
                    loss,
                    case.supervised.answer_tokens,
                    said,
                    is_right(said, self.as_decoded(case.answer)),
                    len(case.question.input_ids),
                )
            done(len(chosen))
        return [results[index] for index in range(len(cases))]

    def answers(self, cases: Sequence[Case]) -> list[str]:
        """Answer each case's question by greedy decoding."""
        new = self._generate(cases, self.max_new_tokens, self.end_token_id)
        return [self.decode(row) for row in new.tolist()]

    def write(self, case: Case, tokens: int) -> None:
        """Generate exactly ``tokens`` tokens and forget them: for timing."""
        # No token has this number, so nothing ends the answer early.
        never = self.model.base_llm_model.config.get_text_config().vocab_size
        self._generate([case], tokens, never)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated tokens up to the end token."""
        kept = list(ids)
        if self.end_token_id in kept:
            kept = kept[: kept.index(self.end_token_id)]
        return str(self.tokenizer.decode(kept, skip_special_tokens=True))

    def as_decoded(self, text: str) -> str:
        """Return ``text`` after the tokenizer's round trip, as a model that says exactly this is heard."""
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        unknown = self.tokenizer.unk_token_id
        # An answer with words that the vocabulary lacks can never be said.
        return "" if unknown is not None and unknown in ids else str(self.tokenizer.decode(ids))

    @torch.no_grad()
    def _generate(self, cases: Sequence[Case], tokens: int, end_token_id: int) -> torch.Tensor:
        batch = self._batch([case.question for case in cases])
        return self.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            **self._memory(cases),
            max_new_tokens=tokens,
            eos_token_id=end_token_id,
            pad_token_id=self._pad,
        )

    @torch.no_grad()
    def _losses(self, cases: Sequence[Case]) -> list[float]:
        """Return the summed loss of each case's answer."""
        batch = self._batch([case.supervised for case in cases])
        # Padding on the left puts every answer at the end, so only those positions get logits: all of them
        # would be gigabytes for a real vocabulary. `forward` with labels gives one loss for the whole batch.
        longest = max(case.supervised.answer_tokens for case in cases)
        logits = self.model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            **self._memory(cases),
            logits_to_keep=longest + 1,
        ).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(
            logits.float().transpose(1, 2),
            batch["labels"][:, -longest:],
            ignore_index=IGNORED,
            reduction="none",
        )
        return [float(loss) for loss in losses.double().sum(1)]

    def _batch(self, sequences: Sequence[TokenSequence]) -> dict[str, torch.Tensor]:
        """Return ids, mask and labels [B, L] on the model's device, padded on the left."""
        batch = pad_sequences(sequences, self._pad, left=True)
        return {name: tensor.to(self.model.device) for name, tensor in batch.items()}

    def _memory(self, cases: Sequence[Case]) -> dict[str, Any]:
        device = self.model.device
        found = {}
        for name, key in (("features", "memory_features"), ("embeddings", "memory_embeddings")):
            parts = [value for case in cases if (value := getattr(case, name)) is not None]
            if parts:
                found[key] = torch.cat(parts).to(device)
        return found


def is_right(said: str, expected: str) -> bool:
    """Compare two texts, white space aside. Nothing matches an answer that cannot be said (empty)."""
    return bool(expected.split()) and said.split() == expected.split()
