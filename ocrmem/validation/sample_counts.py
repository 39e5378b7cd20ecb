"""The samples that the data gives, and those of them that would get memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NotRequired, TypedDict

from ocrmem.config import RunConfig
from ocrmem.console import progress_bar
from ocrmem.conversations import SPLITS, Conversation, split_turns
from ocrmem.errors import DataError, Problem


class SampleCounts(TypedDict):
    """Counts over the data.

    Attributes:
        samples, samples_with_memory: by split.
        longest_history_tokens: of all samples.
        context_threshold: ``model.context_threshold``, which histories with memory exceed.
        unknown_token_share: share of content tokens that are the unknown token; absent for a vocabulary that
            knows all text.
    """

    samples: dict[str, int]
    samples_with_memory: dict[str, int]
    longest_history_tokens: int
    context_threshold: int
    unknown_token_share: NotRequired[float]


def count_samples(
    config: RunConfig, conversations: Sequence[Conversation], problems: list[Problem], notes: list[str]
) -> SampleCounts:
    """Count samples and those that get memory; adds problems and notes about them to the two lists."""
    from ocrmem.dataset.sequence import SequenceBuilder

    builder = SequenceBuilder.of(config)
    threshold, unknown_id = config.model.context_threshold, builder.tokenizer.unk_token_id
    counts: SampleCounts = {
        "samples": dict.fromkeys(SPLITS, 0),
        "samples_with_memory": dict.fromkeys(SPLITS, 0),
        "longest_history_tokens": 0,
        "context_threshold": threshold,
    }
    tokens = unknown = 0
    with progress_bar("counting tokens", len(conversations)) as bar:
        for conversation in conversations:
            bar.advance()
            samples = split_turns(conversation, config.data.recent_turns)
            try:
                longest = builder.count(samples[-1].history)
                # Each history continues the one before it, so their lengths only grow.
                first = bisect_right(samples, threshold, key=lambda sample: builder.count(sample.history))
                for sample in samples:
                    # An answer is never cut: one that does not fit is found here, not while rendering.
                    if len(builder.encode_content(sample.answer)) > config.model.max_seq_length // 2:
                        builder.build(sample.prompt, sample.answer)
            except DataError as error:
                for fault in error.problems:
                    problems.append(Problem(conversation.place, f"{fault.place} {fault.message}", fault.remedy))
                continue
            counts["samples"][conversation.split] += len(samples)
            counts["samples_with_memory"][conversation.split] += len(samples) - first
            counts["longest_history_tokens"] = max(counts["longest_history_tokens"], longest)
            if unknown_id is not None:
                for message in conversation.messages:
                    ids = builder.encode_content(message.content)
                    tokens += len(ids)
                    unknown += ids.count(unknown_id)
    if unknown_id is not None:
        share = unknown / max(tokens, 1)
        counts["unknown_token_share"] = round(share, 4)
        if share:
            notes.append(
                f"{share:.1%} of the data's tokens are unknown to the tokenizer of "
                f"{config.model.base_model_name}: the model can neither read nor say them"
            )
    if conversations and not counts["samples_with_memory"]["train"]:
        problems.append(_nothing_to_remember(counts))
    elif conversations and not counts["samples_with_memory"]["eval"]:
        notes.append("no held-out sample gets memory, so evaluate would have nothing to measure")
    return counts


def _nothing_to_remember(counts: SampleCounts) -> Problem:
    if any(counts["samples_with_memory"].values()):
        remedy = "Name files for training other than eval*.jsonl, or lower data.eval_fraction"
        return Problem("data.path", "no training sample gets memory, only held-out ones do", remedy)
    longest = counts["longest_history_tokens"]
    lower = f"Lower it below {longest}, give" if longest else "Give"
    return Problem(
        "model.context_threshold",
        f"is {counts['context_threshold']}, and the longest of {sum(counts['samples'].values())} histories has "
        f"{longest} tokens: no sample would get memory, so proj would take no part in the loss",
        f"{lower} longer conversations, or lower data.recent_turns",
    )
