"""How many samples the data gives, and how many of them would get memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ocrmem.config import RunConfig
from ocrmem.console import progress_bar
from ocrmem.conversations import SPLITS, Conversation, TurnSample, split_turns
from ocrmem.errors import DataError, Problem

if TYPE_CHECKING:
    from ocrmem.dataset.sequence import SequenceBuilder


def count_samples(
    config: RunConfig, conversations: Sequence[Conversation], problems: list[Problem], notes: list[str]
) -> dict[str, Any]:
    """How many samples there are and get memory; adds problems and notes about them."""
    from ocrmem.dataset.sequence import SequenceBuilder

    builder = SequenceBuilder.of(config)
    counter = _Counter(config, builder)
    with progress_bar("counting tokens", len(conversations)) as bar:
        for conversation in conversations:
            counter.add(conversation)
            bar.advance()
    problems += counter.problems
    threshold = config.model.context_threshold
    result = {
        "samples": counter.samples,
        "samples_with_memory": counter.with_memory,
        "longest_history_tokens": counter.longest,
        "context_threshold": threshold,
    }
    if counter.unknown_share is not None:
        result["unknown_token_share"] = round(counter.unknown_share, 4)
        if counter.unknown_share:
            notes.append(
                f"{counter.unknown_share:.1%} of the data's tokens are unknown to the tokenizer of "
                f"{config.model.base_model_name}: the model can neither read nor say them"
            )
    if conversations and not counter.with_memory["train"]:
        problems.append(_nothing_to_remember(config, counter))
    elif not counter.with_memory["eval"] and conversations:
        notes.append("no held-out sample gets memory, so evaluate would have nothing to measure")
    return result


class _Counter:
    """Counts samples by split, and those whose history is longer than the threshold."""

    def __init__(self, config: RunConfig, builder: SequenceBuilder) -> None:
        self.samples = dict.fromkeys(SPLITS, 0)
        self.with_memory = dict.fromkeys(SPLITS, 0)
        self.longest = 0
        self.problems: list[Problem] = []
        self._config = config
        self._builder = builder
        self._unknown_id = builder.tokenizer.unk_token_id
        self._tokens = self._unknown = 0

    @property
    def unknown_share(self) -> float | None:
        """Share of content tokens that are the unknown token; None for a vocabulary that knows all text."""
        return None if self._unknown_id is None else self._unknown / max(self._tokens, 1)

    def add(self, conversation: Conversation) -> None:
        samples = split_turns(conversation, self._config.data.recent_turns)
        try:
            longest = self._builder.count(samples[-1].history)
            first = self._first_over(samples)
            for sample in samples:
                self._check_length(sample)
        except DataError as error:
            for problem in error.problems:
                text = f"{problem.place} {problem.message}"
                self.problems.append(Problem(conversation.place, text, problem.remedy))
            return
        self.samples[conversation.split] += len(samples)
        self.with_memory[conversation.split] += len(samples) - first
        self.longest = max(self.longest, longest)
        if self._unknown_id is not None:
            for message in conversation.messages:
                ids = self._builder.encode_content(message.content)
                self._tokens += len(ids)
                self._unknown += ids.count(self._unknown_id)

    def _first_over(self, samples: Sequence[TurnSample]) -> int:
        """The first sample over the threshold. Each history goes on from the one before, so its length only
        grows and bisection finds the place."""
        low, high = 0, len(samples)
        while low < high:
            middle = (low + high) // 2
            if self._builder.count(samples[middle].history) > self._config.model.context_threshold:
                high = middle
            else:
                low = middle + 1
        return low

    def _check_length(self, sample: TurnSample) -> None:
        """An answer is never cut: one that does not fit is found here, not while rendering."""
        answer = len(self._builder.encode_content(sample.answer))
        if answer > self._config.model.max_seq_length // 2:
            self._builder.build(sample.prompt, sample.answer)


def _nothing_to_remember(config: RunConfig, counter: _Counter) -> Problem:
    threshold = config.model.context_threshold
    if sum(counter.with_memory.values()):
        return Problem(
            "data.path",
            "no training sample gets memory, only held-out ones do",
            "Name files for training other than eval*.jsonl, or lower data.eval_fraction",
        )
    remedy = "Give longer conversations, or lower data.recent_turns"
    if counter.longest:
        remedy = f"Lower it below {counter.longest}, give longer conversations, or lower data.recent_turns"
    return Problem(
        "model.context_threshold",
        f"is {threshold}, and the longest of {sum(counter.samples.values())} histories has {counter.longest} "
        "tokens: no sample would get memory, so proj would take no part in the loss",
        remedy,
    )
