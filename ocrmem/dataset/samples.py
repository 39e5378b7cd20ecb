"""One conversation becomes samples and pages. Nothing here touches a disk."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ocrmem.config import RunConfig
from ocrmem.conversations import Conversation, Message, TurnSample, split_turns
from ocrmem.dataset.schema import PageRow, Sample
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.errors import DataError, Problem
from ocrmem.facts import tokens_per_page
from ocrmem.rendering import Page
from ocrmem.rendering.history import HistoryRenderer, NewestPages
from ocrmem.rendering.transcript import message_ends

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class Made:
    """Samples and pages of one conversation.

    Attributes:
        samples: in the order of its turns.
        pages: those that its samples refer to, each once, in the order of first use.
        problems: one for each sample that cannot be made; it is not among ``samples``.
        longest_history: tokens of the longest history, with memory or not.
        content_tokens: of all messages.
        unknown_tokens: of these, the ones that the tokenizer does not know.
    """

    samples: list[Sample] = field(default_factory=list)
    pages: list[PageRow] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    longest_history: int = 0
    content_tokens: int = 0
    unknown_tokens: int = 0


class SampleMaker:
    """Makes samples under one configuration.

    Args:
        config: sections model, render and data are used.
        tokenizer: the base model's.
    """

    def __init__(self, config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self.config = config
        self.builder = SequenceBuilder.of(config, tokenizer)
        self.renderer = HistoryRenderer(config.render)

    def make(self, conversation: Conversation, pictures: Sequence[Page] = ()) -> Made:
        """Make the samples and pages of a conversation.

        Args:
            pictures: pages that were not drawn; they come before those of the text in every memory.
        """
        made = Made()
        turns = split_turns(conversation, self.config.data.recent_turns)
        longest = turns[-1].history if turns else ()
        try:
            lengths = self.builder.count_each(longest, [len(turn.history) for turn in turns])
        except DataError as error:
            made.problems = [replace(problem, place=conversation.place) for problem in error.problems]
            return made
        made.longest_history = max(lengths, default=0)
        made.content_tokens, made.unknown_tokens = self.builder.count_unknown(conversation.messages)
        rows: dict[str, PageRow] = {}
        over = [length > self.config.model.context_threshold for length in lengths]
        memories = self.renderer.draw_each(
            longest, [len(turn.history) for turn, yes in zip(turns, over, strict=True) if yes]
        )
        places = message_ends(longest, self.config.render.labels)
        for turn, length, becomes_memory in zip(turns, lengths, over, strict=True):
            memory = self._behind(pictures, next(memories)) if becomes_memory else None
            try:
                made.samples.append(self._sample(turn, length, memory, rows, places))
            except DataError as error:
                place = f"{conversation.place}: sample {turn.id}"
                fewer_pages = memory is not None and self.config.render.max_pages > 1
                made.problems += [_of_sample(problem, place, fewer_pages) for problem in error.problems]
        used = dict.fromkeys(name for sample in made.samples for name in sample.pages)
        made.pages = [rows[name] for name in used]
        return made

    def _behind(self, pictures: Sequence[Page], drawn: NewestPages) -> NewestPages:
        """Put pictures in front of drawn pages, as the first to be dropped."""
        pages = [*pictures, *drawn.pages]
        over = max(len(pages) - self.config.render.max_pages, 0)
        return replace(drawn, pages=pages[over:], dropped=drawn.dropped + over)

    def _sample(
        self,
        turn: TurnSample,
        history_tokens: int,
        memory: NewestPages | None,
        rows: dict[str, PageRow],
        places: Sequence[int],
    ) -> Sample:
        """Make one sample; ``rows`` gets its pages, ``places`` are the ends of the history's messages."""
        tokens = 0
        names: list[str] = []
        every = tokens_per_page(self.config.render.page_size, self.config.render.token_size)
        for page in memory.pages if memory else ():
            row = rows.get(page.hash)
            if row is None:
                row = rows[page.hash] = page_row(page, self.config.render.token_size)
            kept = int.from_bytes(row.ink_mask).bit_count()
            tokens += kept if self.config.model.drop_blank_tokens else every
            names.append(row.hash)
        if memory and not tokens:
            raise DataError.of(
                "history",
                "leaves no ink on a page, so there is nothing to remember",
                "Remove the conversation, or keep render.labels that can be seen",
            )
        sequence = self.builder.build(
            turn.prompt, turn.answer, memory_tokens=tokens, history=() if memory else turn.history
        )
        return Sample(
            id=turn.id,
            conversation_id=turn.conversation_id,
            split=turn.split,
            turn=turn.turn,
            history=turn.history,
            prompt=turn.prompt,
            answer=turn.answer,
            history_tokens=history_tokens,
            pages=tuple(names),
            memory_tokens=tokens,
            sequence_tokens=len(sequence.input_ids),
            answer_tokens=sequence.answer_tokens,
            dropped_tokens=sequence.dropped_tokens,
            dropped_pages=memory.dropped if memory else 0,
            pictured_tokens=self._shown_tokens(turn.history, memory.start, places)
            if memory and memory.dropped
            else None,
        )

    def _shown_tokens(self, history: Sequence[Message], start: int, places: Sequence[int]) -> int:
        """Return the text tokens of what a history's transcript shows from character ``start`` on."""
        first = bisect_right(places, start)
        content = history[first].content
        # What is shown of it, the newline that ends a message left out; its label may be shown too.
        shown = content[max(len(content) + 1 - (places[first] - start), 0) :]
        return self.builder.count([replace(history[first], content=shown), *history[first + 1 :]])


def _of_sample(problem: Problem, place: str, fewer_pages: bool) -> Problem:
    """Return a problem as one of a sample; ``fewer_pages``: it would be smaller with a lower render.max_pages."""
    remedy = problem.remedy
    if problem.place == "sequence":
        remedy += f"{', lower render.max_pages' if fewer_pages else ''}, or leave such samples out with --skip-bad"
    return Problem(place, problem.message, remedy)


def page_row(page: Page, token_size: int) -> PageRow:
    """Return a page as it is stored, with what readers ask for most often worked out once."""
    return PageRow(
        hash=page.hash,
        size=page.size,
        atlas_version=page.atlas_version,
        ink_pixels=page.ink_pixels,
        ink_mask=np.packbits(page.ink_mask(token_size)).tobytes(),
        bits=page.to_bytes(),
    )
