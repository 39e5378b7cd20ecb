"""The samples that the data gives, and those of them that would get memory."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from typing import NotRequired, TypedDict

from ocrmem.config import RunConfig
from ocrmem.conversations import SPLITS, Conversation, split_turns
from ocrmem.conversations.sources import conversion, data_files
from ocrmem.errors import DataError, Problem, ProblemList
from ocrmem.rendering.history import HistoryRenderer
from ocrmem.verdicts import MOST_UNKNOWN, dataset_warnings

_MEASURED = 100  # conversations whose length tells how many single questions fill a memory


class SampleCounts(TypedDict):
    """Counts over the data.

    Attributes:
        samples, samples_with_memory: by split.
        longest_history_tokens: of all samples.
        context_threshold: ``model.context_threshold``, which histories with memory exceed.
        unknown_token_share: share of content tokens that are the unknown token; absent for a vocabulary that
            knows all text.
        warnings: what will make the dataset less than it seems.
    """

    samples: dict[str, int]
    samples_with_memory: dict[str, int]
    longest_history_tokens: int
    context_threshold: int
    unknown_token_share: NotRequired[float]
    warnings: list[str]


class SampleCounter:
    """Counts the samples of conversations, one after the other, and those that get memory.

    Attributes:
        conversations: counted so far, by split.
        problems: of the samples, and of the counts once they are `closed`.

    Raises:
        OcrMemError: the tokenizer does not load.
    """

    def __init__(self, config: RunConfig) -> None:
        from ocrmem.dataset.sequence import SequenceBuilder

        self._config, self._builder = config, SequenceBuilder.of(config)
        self._renderer = HistoryRenderer(config.render)
        self.conversations: dict[str, int] = dict.fromkeys(SPLITS, 0)
        self.problems = ProblemList()
        self._counts: SampleCounts = {
            "samples": dict.fromkeys(SPLITS, 0),
            "samples_with_memory": dict.fromkeys(SPLITS, 0),
            "longest_history_tokens": 0,
            "context_threshold": config.model.context_threshold,
            "warnings": [],
        }
        # Under the names that the dataset's manifest has for them.
        self._text = dict.fromkeys(("content_tokens", "unknown_tokens", "pages", "dropped_pages"), 0)
        self._measured: list[int] = []  # tokens of the first conversations

    def add(self, conversation: Conversation) -> None:
        """Count one conversation."""
        self.conversations[conversation.split] += 1
        builder, threshold = self._builder, self._config.model.context_threshold
        samples = split_turns(conversation, self._config.data.recent_turns)
        try:
            longest = builder.count(samples[-1].history)
            if len(self._measured) < _MEASURED:
                self._measured.append(builder.count(conversation.messages))
            # Each history continues the one before it, so their lengths only grow.
            first = bisect_right(samples, threshold, key=lambda sample: builder.count(sample.history))
            for sample in samples:
                # An answer is never cut: one that does not fit is found here, not while rendering.
                if len(builder.encode_content(sample.answer)) > self._config.model.max_seq_length // 2:
                    builder.build(sample.prompt, sample.answer)
        except DataError as error:
            for fault in error.problems:
                self.problems.add(Problem(conversation.place, f"{fault.place} {fault.message}", fault.remedy))
            return
        self._counts["samples"][conversation.split] += len(samples)
        self._counts["samples_with_memory"][conversation.split] += len(samples) - first
        self._counts["longest_history_tokens"] = max(self._counts["longest_history_tokens"], longest)
        most = self._config.render.max_pages
        for pages in self._renderer.pages_each(samples[-1].history, [len(one.history) for one in samples[first:]]):
            self._text["pages"] += min(pages, most)
            self._text["dropped_pages"] += max(pages - most, 0)
        tokens, unknown = builder.count_unknown(conversation.messages)
        self._text["content_tokens"] += tokens
        self._text["unknown_tokens"] += unknown

    def closed(self, notes: list[str]) -> SampleCounts:
        """Return the counts of all conversations; adds notes about them to the list, and faults to ``problems``."""
        counts, text = self._counts, self._text
        counts["warnings"] = dataset_warnings(text)
        if self._builder.tokenizer.unk_token_id is not None:
            share = text["unknown_tokens"] / max(text["content_tokens"], 1)
            counts["unknown_token_share"] = round(share, 4)
            if 0 < share <= MOST_UNKNOWN:
                notes.append(
                    f"{share:.1%} of the data's tokens are unknown to the tokenizer of "
                    f"{self._config.model.base_model_name}: the model can neither read nor say them"
                )
        if any(self.conversations.values()) and not counts["samples_with_memory"]["train"]:
            self.problems.add(self._nothing_to_remember())
        elif any(self.conversations.values()) and not counts["samples_with_memory"]["eval"]:
            notes.append("no held-out sample gets memory, so evaluate would have nothing to measure")
        return counts

    def _nothing_to_remember(self) -> Problem:
        counts, data = self._counts, self._config.data
        if any(counts["samples_with_memory"].values()):
            remedy = "Name files for training other than eval*.jsonl, or lower data.eval_fraction"
            return Problem("data.path", "no training sample gets memory, only held-out ones do", remedy)
        longest, threshold = counts["longest_history_tokens"], counts["context_threshold"]
        remedies = [f"Lower it below {longest}"] if longest else []
        remedies += ["lower data.recent_turns"] if data.recent_turns > 1 else []
        if not remedies:
            # The earlier ones of a group are the history of its last, and must be longer than the threshold together.
            average = max(sum(self._measured) // len(self._measured), 1)
            join = conversion(data_files(Path(data.path))[0], "joined", f" --join {3 * threshold // (2 * average) + 2}")
            remedies = [f"Give conversations of several turns. Or make some of single questions: {join}"]
        return Problem(
            "model.context_threshold",
            f"is {threshold}, and the longest of {sum(counts['samples'].values())} histories has {longest} tokens: no "
            "sample would get memory, so proj would take no part in the loss",
            ", or ".join([*remedies, "give longer conversations"] if longest else remedies),
        )
