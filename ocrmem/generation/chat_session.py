"""ChatSession: a conversation answered turn after turn, at the cost of what each turn adds.

The adapter's own config.json says how the history is split, drawn and encoded, so the pages are those the
adapter was trained on, whatever params.yaml says about them.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypedDict, cast

import torch
from transformers import PreTrainedTokenizerBase

from ocrmem.arguments import require, require_config
from ocrmem.config import RunConfig
from ocrmem.conversations import Conversation
from ocrmem.dataset.samples import SampleMaker
from ocrmem.dataset.schema import PageRow, Sample
from ocrmem.encoder.page_encoding import Encoder, encode_kept_tokens
from ocrmem.errors import DataError, wrong
from ocrmem.evaluation.scoring import Case, Scorer
from ocrmem.families import with_marks
from ocrmem.generation.question import read_question
from ocrmem.generation.settings import adapter_and_settings, bring_base, settings_of
from ocrmem.model.adapter_files import read_config
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.modeling import MEMModel
from ocrmem.model.prefix_cache import PrefixCache
from ocrmem.rendering import Page
from ocrmem.rendering.history import HistoryRenderer
from ocrmem.tokens import load_tokenizer

# On the tiny preset, features of held-out pages have a shift of 0.07 to 0.45 and a spread of 0.07 to 0.29; an
# encoder with random weights has a spread above 3, features three times too large have both over the limit.
SHIFT_LIMIT = 1.0  # of the mean, in training standard deviations
SPREAD_LIMIT = 0.7  # of the standard deviation: about a factor of two


class Answer(TypedDict):
    """An answer, and what became of the history."""

    answer: str
    memory: bool  # whether there was any
    history_tokens: int
    vision_tokens: int
    memory_tokens: int  # vision tokens and the two marks
    pages: int
    encoded_pages: int
    dropped_pages: int
    dropped_tokens: int  # text tokens that did not fit into the sequence
    compression_ratio: float | None
    feature_distance: dict[str, float] | None  # None without memory or statistics
    warnings: list[str]


@dataclass(frozen=True)
class Prepared:
    """A question as the model gets it."""

    sample: Sample  # how the conversation was split, and its memory
    case: Case  # token sequence and the features of its memory
    encoded_pages: int  # that went through the encoder for it


class ChatSession:
    """Answers one conversation after another, most cheaply when each continues the last.

    A turn draws the page that it adds to, and the pages after that, and encodes pages that the session has not seen:
    one page, or two where a page gets full. The language model reads from the first token on that differs from the last
    turn's. The answers are those of a new session.

    Args:
        model: with its encoder attached, in eval mode.
        tokenizer: the base model's; None: it is loaded.
        config: the run's settings; those that samples depend on are taken from the adapter instead. None: the
            adapter's own.
        cached_pages: pages whose features are kept, at least ``max_pages``. A page of 256 tokens of 1024 numbers
            takes 1 MiB.
        context_threshold: histories of no more tokens stay text; None: the adapter's.

    Raises:
        ConfigError: an argument is something else.
    """

    def __init__(
        self,
        model: MEMModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        config: RunConfig | None = None,
        *,
        cached_pages: int = 256,
        context_threshold: int | None = None,
    ) -> None:
        remedy = "Load one by the adapter's name: ChatSession.open(adapter=...), or ocrmem.Memory.load(...)"
        require(MEMModel, model, "ChatSession", "a loaded model", remedy)
        if isinstance(tokenizer, str | os.PathLike):
            raise wrong("ChatSession(tokenizer)", "a loaded tokenizer", tokenizer, "Leave it out: it is loaded")
        if config is not None:
            require_config("ChatSession(config)", config)
        self.model = model
        config = config or settings_of(model.config)
        self.family = config.model.family
        settings = as_trained(config, model.config, context_threshold)
        tokenizer = load_tokenizer(config) if tokenizer is None else tokenizer
        self.maker = SampleMaker(settings, tokenizer)
        most = max(cached_pages, settings.render.max_pages)
        self.features = FeatureCache(cast(Encoder, model.ocr_embed), most)
        self.prefix = PrefixCache(model.base_llm_model.config, model.config.placeholder_token_id)
        end, longest = self.maker.builder.end_token_id, config.evaluate.max_new_tokens
        self.scorer = Scorer(model, tokenizer, end, batch_size=1, max_new_tokens=longest)

    @classmethod
    def open(
        cls,
        config: RunConfig | None = None,
        adapter: str | Path | None = None,
        *,
        cached_pages: int = 256,
        context_threshold: int | None = None,
    ) -> Self:
        """Load an adapter with its language model and encoder.

        Args:
            config: names the models' places, the device and the registry. None: the adapter's own settings; a base
                model that `ocrmem base` knows how to fetch is brought to this user's cache.
            adapter: a name in the box, a directory or ``models:/NAME@ALIAS``; None: ``paths.adapter``, or "english"
                without a ``config``.

        Raises:
            ConfigError: the adapter does not exist, or ``config`` is something else.
            ModelError: it was changed, or does not fit the base model, encoder or settings.
        """
        remedy = "Name the adapter by its keyword: ChatSession.open(adapter=...)"
        require(RunConfig | None, config, "ChatSession.open", "a RunConfig first", remedy)
        directory, settings = adapter_and_settings(adapter, config)
        bring_base(settings, read_config(directory).base_fingerprint)
        model = MEMModel.from_pretrained(directory, run_config=settings, with_encoder=True).eval()
        return cls(model, None, settings, cached_pages=cached_pages, context_threshold=context_threshold)

    def answer(self, messages: Sequence[Mapping[str, Any]]) -> Answer:
        """Answer the last user message of a conversation in OpenAI's form (``role``, ``content``).

        Raises:
            ConfigError: they are no list of messages.
            DataError: every fault of the messages.
        """
        if isinstance(messages, str | Mapping) or not isinstance(messages, Iterable):
            remedy = 'Write answer([{"role": "user", "content": "..."}]); a text is remembered by ocrmem.Memory'
            raise wrong("ChatSession.answer", "a list of messages", messages, remedy)
        asked, _ = read_question(json.dumps({"messages": list(messages)}).encode(), "messages", self.family)
        return self.answer_to(asked)

    def answer_to(self, asked: Conversation) -> Answer:
        """Answer what `read_question` gave.

        Raises:
            DataError: the conversation makes no sample.
        """
        return self.answer_prepared(self.prepare(asked))

    def answer_prepared(self, prepared: Prepared) -> Answer:
        """Answer what `prepare` gave."""
        sample, case = prepared.sample, prepared.case
        distance = None if case.features is None else self.model.feature_drift(case.features)
        return {
            "answer": self.scorer.answers([case], self.prefix)[0],
            "memory": sample.has_memory,
            "history_tokens": sample.history_tokens,
            "vision_tokens": sample.memory_tokens,
            "memory_tokens": with_marks(sample.memory_tokens),
            "pages": len(sample.pages),
            "encoded_pages": prepared.encoded_pages,
            "dropped_pages": sample.dropped_pages,
            "dropped_tokens": case.question.dropped_tokens,
            "compression_ratio": round(sample.compression_ratio, 4) if sample.has_memory else None,
            "feature_distance": distance,
            "warnings": _warnings(distance, sample),
        }

    def prepare(self, asked: Conversation, pictures: Sequence[Page] = ()) -> Prepared:
        """Draw and encode what is new, and put the question together.

        Args:
            asked: as `read_question` gives it.
            pictures: pages that were not drawn, see `SampleMaker.make`.

        Raises:
            DataError: the conversation makes no sample.
        """
        made = self.maker.make(asked, pictures)
        if made.problems:
            raise DataError(made.problems)
        sample = made.samples[-1]
        history = () if sample.has_memory else sample.history
        question = self.maker.builder.build(sample.prompt, None, memory_tokens=sample.memory_tokens, history=history)
        before = self.features.encoded
        features = None
        if sample.has_memory:
            rows, dropping = {row.hash: row for row in made.pages}, self.maker.config.model.drop_blank_tokens
            features = self.features.of([rows[name] for name in sample.pages], drop_blank_tokens=dropping)
        case = Case(sample.id, question, question, "", features=features)
        return Prepared(sample, case, self.features.encoded - before)

    def forget(self) -> None:
        """Drop what is drawn and read; to be called when a turn was broken off in its midst. Features stay."""
        self.maker.renderer = HistoryRenderer(self.maker.config.render)
        self.prefix.forget()


class FeatureCache:
    """Features of the pages used last, by their hashes.

    Args:
        most: pages that are kept; the least recently used go first. It must reach for one history.
    """

    def __init__(self, encoder: Encoder, most: int) -> None:
        self.encoder = encoder
        self.most = most
        self.encoded = 0  # pages that went through the encoder so far
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, pages: Sequence[PageRow], *, drop_blank_tokens: bool) -> torch.Tensor:
        """Return the features of the pages' tokens, one page after the other: float32 [tokens, d] on the CPU.

        ``drop_blank_tokens`` leaves only tokens with ink, and must be the same at every call.
        """
        missing = {page.hash: page for page in pages if page.hash not in self._kept}
        if missing:
            drawn = [Page.from_bytes(row.bits, row.size, row.atlas_version) for row in missing.values()]
            tokens = encode_kept_tokens(self.encoder, drawn, drop_blank_tokens=drop_blank_tokens)
            # Copied, since a slice would keep its whole batch alive.
            self._kept.update({name: features.clone() for name, features in zip(missing, tokens, strict=True)})
            self.encoded += len(missing)
        for page in pages:
            self._kept.move_to_end(page.hash)
        found = torch.cat([self._kept[page.hash] for page in pages])
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)
        return found


def as_trained(config: RunConfig, adapter: MEMConfig, context_threshold: int | None = None) -> RunConfig:
    """Return a run's settings with those of the adapter wherever a sample depends on them, but for a threshold."""
    names = ("context_threshold", "max_seq_length", "drop_blank_tokens")
    values = {name: getattr(adapter, name) for name in names}
    if context_threshold is not None:
        values["context_threshold"] = context_threshold
    model = config.model.model_copy(update=values)
    data = config.data.model_copy(update={"recent_turns": adapter.recent_turns})
    return config.model_copy(update={"model": model, "data": data, "render": adapter.render_section()})


def _warnings(distance: dict[str, float] | None, sample: Sample) -> list[str]:
    found = []
    if distance and (distance["shift"] > SHIFT_LIMIT or distance.get("spread", 0.0) > SPREAD_LIMIT):
        figures = ", ".join(f"{name} {value:.2f}" for name, value in distance.items())
        found.append(
            f"the encoder's features are unlike those the adapter was trained on ({figures}), so the answer "
            "may mean nothing: check the encoder, the precision and the kind of text"
        )
    if sample.dropped_pages:
        lost = f"{sample.history_tokens - sample.text_tokens:,} of {sample.history_tokens:,} text tokens"
        found.append(
            f"the {sample.dropped_pages} oldest pages of {sample.dropped_pages + len(sample.pages)}, with {lost}, are "
            "over render.max_pages and were left out"
        )
    return found
