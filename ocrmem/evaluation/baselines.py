"""The variants of an evaluation: what each puts in front of the question.

All variants share the sample's prompt, question and answer. Those that are compared at equal tokens have at
most as many tokens in the sequence as memory has, the two marks around memory included.
"""

from __future__ import annotations

import copy
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from string import ascii_lowercase

import torch
from torch import nn

from ocrmem.conversations import Message
from ocrmem.dataset.schema import Sample
from ocrmem.dataset.sequence import SequenceBuilder, TokenSequence
from ocrmem.errors import DataError
from ocrmem.evaluation.scoring import Case
from ocrmem.families import MARK_TOKENS

_WORDS = re.compile(r"\S+")
_RANDOM_LETTERS = 6


class CaseMaker:
    """Makes the cases of text and memory variants.

    Args:
        builder: of the run; its ``max_seq_length`` bounds every variant but the full text.
        longest_text: the language model's own limit, for the full text.
    """

    def __init__(self, builder: SequenceBuilder, longest_text: int) -> None:
        self.builder = builder
        self._long = _with_length(builder, max(longest_text, builder.max_seq_length))

    def with_memory(self, sample: Sample, features: torch.Tensor) -> Case:
        """Open the prompt with memory of ``features`` [m, d], fitted as in training."""
        sequences = self._sequences(self.builder, sample, memory_tokens=len(features))
        return Case(sample.id, *sequences, sample.answer, features=features)

    def with_other_memory(self, sample: Sample, features: torch.Tensor) -> Case:
        """Open the prompt with another conversation's memory, in its own length.

        Where there is no room for all of it, its oldest tokens are left out: a prompt is never cut for it.
        """
        room = self.builder.max_seq_length - len(self._sequences(self.builder, sample)[0].input_ids) - MARK_TOKENS
        return self.with_memory(sample, features[-max(room, sample.memory_tokens) :])

    def without_memory(self, sample: Sample) -> Case:
        """Give the prompt alone."""
        return Case(sample.id, *self._sequences(self.builder, sample), sample.answer)

    def truncated(self, sample: Sample) -> Case:
        """Give the end of the history as chat turns, in a sequence no longer than that with memory.

        The template's tokens around the turns count, as the two marks around memory do.
        """

        def fitted(answer: str | None) -> TokenSequence:
            with_memory = self.builder.build(sample.prompt, answer, memory_tokens=sample.memory_tokens)
            equal = _with_length(self.builder, len(with_memory.input_ids))
            return equal.build(sample.prompt, answer, history=sample.history)

        return Case(sample.id, fitted(sample.answer), fitted(None), sample.answer)

    def full_text(self, sample: Sample) -> Case:
        """Give the whole history as chat turns, as far as the language model's positions go."""
        return Case(sample.id, *self._sequences(self._long, sample, history=sample.history), sample.answer)

    def mean_pooled(self, sample: Sample, embeddings: nn.Module) -> Case:
        """Average the history's token embeddings, as they are, into as many slots as memory has."""
        ids = [token for message in sample.history for token in self.builder.encode_content(message.content)]
        pooled = pool(embed(embeddings, ids), sample.memory_tokens)
        sequences = self._sequences(self.builder, sample, memory_tokens=sample.memory_tokens)
        return Case(sample.id, *sequences, sample.answer, embeddings=pooled)

    def _sequences(
        self, builder: SequenceBuilder, sample: Sample, memory_tokens: int = 0, history: Sequence[Message] = ()
    ) -> tuple[TokenSequence, TokenSequence]:
        """Build the sequence with the answer, and that up to the generation prompt."""
        supervised = builder.build(sample.prompt, sample.answer, memory_tokens=memory_tokens, history=history)
        question = builder.build(sample.prompt, None, memory_tokens=memory_tokens, history=history)
        return supervised, question


def of_other_conversations(samples: Sequence[Sample]) -> list[int]:
    """Return for each sample the index of one from another conversation; every sample is used once.

    Samples are sorted by conversation and rotated by the size of the largest conversation, which is the
    smallest rotation that leads every one of them out of its own.

    Raises:
        DataError: one conversation holds more than half of the samples, so there are not enough others.
    """
    order = sorted(range(len(samples)), key=lambda i: (samples[i].conversation_id, samples[i].turn))
    ((largest, size),) = Counter(sample.conversation_id for sample in samples).most_common(1)
    if 2 * size > len(samples):
        message = f"conversation {largest!r} has {size} of the {len(samples)} held-out samples with memory"
        remedy = "Hold out more conversations (an eval*.jsonl file, or a higher data.eval_fraction)"
        raise DataError.of("evaluate", f"{message}, so memory cannot be shuffled between conversations", remedy)
    partner = dict(zip(order, order[size:] + order[:size], strict=True))
    return [partner[index] for index in range(len(samples))]


def scrambled(sample: Sample, seed: int) -> Sample | None:
    """Shuffle the words of a sample's history, except in the messages that hold the answer.

    A memory that reads its pages still finds the answer; one that leans on fluent text does not. Words change
    places within their message, so lines stay about as long.

    Returns:
        None when no message of the history holds the answer, or no word changed its place.
    """
    answer = " ".join(sample.answer.split()).lower()
    if not any(_holds(message, answer) for message in sample.history):
        return None
    source = random.Random(f"{seed} {sample.id}")
    history = tuple(
        message if _holds(message, answer) else replace(message, content=_shuffle_words(message.content, source))
        for message in sample.history
    )
    return replace(sample, history=history) if history != tuple(sample.history) else None


def with_random_answer(sample: Sample, seed: int) -> Sample | None:
    """Put random letters in place of the answer, on the pages and as what is right.

    No knowledge of the language helps to say them: only a memory whose characters can be read does.

    Returns:
        None when no message of the history holds the answer, or the prompt says it.
    """
    words = r"\s+".join(re.escape(word) for word in sample.answer.split())
    wanted = re.compile(rf"(?<![A-Za-z0-9]){words}(?![A-Za-z0-9])", re.IGNORECASE)  # "tea" is not in "steam"
    found = any(wanted.search(message.content) for message in sample.history)
    if not words or not found or any(wanted.search(message.content) for message in sample.prompt):
        return None
    source = random.Random(f"{seed} {sample.id}")
    letters = "".join(source.choices(ascii_lowercase, k=_RANDOM_LETTERS))
    history = tuple(replace(message, content=wanted.sub(letters, message.content)) for message in sample.history)
    return replace(sample, history=history, answer=letters)


def pool(embeddings: torch.Tensor, slots: int) -> torch.Tensor:
    """Average [T, H] into [slots, H]: equal stretches, overlapping where T is no multiple (or less); zeros of none."""
    if not len(embeddings):
        return embeddings.new_zeros(slots, embeddings.shape[1])
    return nn.functional.adaptive_avg_pool1d(embeddings.T.unsqueeze(0), slots).squeeze(0).T


@torch.no_grad()
def embed(embeddings: nn.Module, ids: Sequence[int]) -> torch.Tensor:
    """Return the language model's embeddings of tokens, float32 [T, H] on the CPU."""
    weight = next(embeddings.parameters())
    return embeddings(torch.tensor(ids, dtype=torch.long, device=weight.device)).float().cpu()


def _holds(message: Message, answer: str) -> bool:
    return answer in " ".join(message.content.split()).lower()


def _shuffle_words(text: str, source: random.Random) -> str:
    words = _WORDS.findall(text)
    source.shuffle(words)
    remaining = iter(words)
    return _WORDS.sub(lambda match: next(remaining), text)


def _with_length(builder: SequenceBuilder, length: int) -> SequenceBuilder:
    """Copy a builder, sharing its caches, for sequences of at most ``length`` tokens."""
    other = copy.copy(builder)
    other.max_seq_length = length
    return other
