"""Turning a sample into token ids and labels.

The chat template is rendered over private sentinels instead of the messages' content and split at them; the
template's own parts are tokenised with their control tokens, the content without. So text that holds
``<|im_end|>`` or ``<|image_pad|>`` stays text, whatever the tokenizer, and the place of the answer is known
rather than searched for: an end token that closes every message cannot be mistaken for the answer's.

Some templates (Mistral's, Gemma's) take nothing but user and assistant by turns. Under these the oldest turns go in
pairs, and opening system messages, where the template refuses them or moves them, open the first user message.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING, Self, TypeVar

from jinja2.exceptions import TemplateError

from ocrmem.errors import DataError, ModelError
from ocrmem.facts import IGNORED
from ocrmem.families import DEFAULT, EXAMPLE, Family, with_marks
from ocrmem.tokens import load_tokenizer, memory_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ocrmem.config import RunConfig
    from ocrmem.conversations import Message

_SENTINEL = "\ue5c0ocrmem{index}\ue5c1"  # never meets content: content is not rendered
_SENTINEL_PATTERN = re.compile("\ue5c0ocrmem([0-9]+)\ue5c1")
_CACHE_ENTRIES = 16_384
_CACHED_TOKENS = 1 << 20  # of contents: many are short and repeat, and a few may be long
_CACHED_ROLES = 128  # of longer conversations the template's parts are not kept: they grow with the square
_FEW = 4  # histories for which nothing is gained by rendering the template once
Key = TypeVar("Key")
Ids = TypeVar("Ids")


@dataclass(frozen=True)
class TokenSequence:
    """One sample as the language model sees it.

    Attributes:
        input_ids: token ids; memory is start, ``memory_tokens`` placeholders, end.
        labels: as many; `IGNORED` but for the answer and its end token.
        memory_tokens: placeholders in ``input_ids``.
        dropped_tokens: content tokens of history and prompt that were left out to fit.
    """

    input_ids: list[int]
    labels: list[int]
    memory_tokens: int
    dropped_tokens: int

    @property
    def answer_tokens(self) -> int:
        """Supervised tokens: the answer and its end token."""
        return len(self.labels) - self.labels.count(IGNORED)


@dataclass(eq=False)
class _Turn:
    """A message on its way into the sequence. ``pinned``: may lose its content, not its place."""

    role: str
    ids: list[int]
    pinned: bool = False


class SequenceBuilder:
    """Builds sequences with a tokenizer's chat template.

    Args:
        tokenizer: with a chat template and three tokens that mark memory (see `ocrmem.families`).
        max_seq_length: most tokens of a sequence, memory and answer included.
        family: of the base model.

    Raises:
        ModelError: the tokenizer lacks what memory needs, or its template does not write every message once.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, family: Family = DEFAULT) -> None:
        self.tokenizer = tokenizer
        self.max_seq_length = max_seq_length
        self.memory = memory_tokens(tokenizer, family)
        self._template_options = family.template_options
        self._content_cache: dict[str, tuple[int, ...]] = {}
        self._content_tokens = 0
        self._markup_cache: dict[str, tuple[int, ...]] = {}
        self._template_cache: dict[tuple[bool | str, ...], list[tuple[int, ...]]] = {}
        self._length_cache: dict[str, int] = {}
        self._control = self._control_tokens()
        # Cutting a control token's text after its first character keeps any tokenizer from seeing it whole.
        texts = sorted((text for text in self._control.values() if len(text) > 1), key=len, reverse=True)
        self._cut = re.compile("|".join(f"(?<={re.escape(t[0])})(?={re.escape(t[1:])})" for t in texts))
        self._merges_system = False
        self._merges_system = not self._accepts(["system", "user", "assistant", "user"])
        self._alternates = not self._accepts(["assistant", "user"])
        self._writes_generation_prompt = self._render(["user"], True) != self._render(["user"], False)
        self.closing_ids = self._closing()

    @classmethod
    def of(cls, config: RunConfig, tokenizer: PreTrainedTokenizerBase | None = None) -> Self:
        """Build sequences under a run's settings; the base model's tokenizer is loaded where none is given."""
        tokenizer = load_tokenizer(config) if tokenizer is None else tokenizer
        return cls(tokenizer, config.model.max_seq_length, family=config.model.family)

    @property
    def end_token_id(self) -> int:
        """The token that ends an answer; generation stops at it."""
        return self.closing_ids[-1]

    def count(self, messages: Sequence[Message]) -> int:
        """Count the tokens that ``messages`` take in front of a user's turn, the template's own included."""
        if not messages:
            return 0
        markup = self._markup_length([message.role for message in messages])
        return markup + sum(len(self.encode_content(message.content)) for message in messages)

    def count_each(self, messages: Sequence[Message], ends: Sequence[int]) -> list[int]:
        """Return `count` of ``messages[:end]`` for each end: ascending, each in front of a user's turn.

        A long conversation's template is rendered once instead of for each of its turns, if what it writes up to a
        user's turn does not depend on what follows; the shortest and a middle one are compared.
        """
        exact = [end for end in ends if end <= _CACHED_ROLES]
        long = ends[len(exact) :]
        if len(long) < _FEW:
            return [self.count(messages[:end]) for end in ends]
        roles = [message.role for message in messages]
        content = [0, *accumulate(len(self.encode_content(message.content)) for message in messages)]
        parts = [len(part) for part in self._markup([*roles[: long[-1]], "user"])]
        rest = parts[-1] - sum(map(len, self._markup(["user"])))
        markup = [length + rest for length in accumulate(parts)]
        if any(markup[end] != self._markup_length(roles[:end]) for end in (long[0], long[len(long) // 2])):
            return [self.count(messages[:end]) for end in ends]
        return [self.count(messages[:end]) for end in exact] + [markup[end] + content[end] for end in long]

    def count_unknown(self, messages: Sequence[Message]) -> tuple[int, int]:
        """Count the tokens of the messages' content, and those of them that are the tokenizer's unknown one."""
        contents = [self.encode_content(message.content) for message in messages]
        return sum(map(len, contents)), sum(ids.count(self.tokenizer.unk_token_id) for ids in contents)

    def encode_content(self, text: str) -> tuple[int, ...]:
        """Return the token ids of a message's content. No control token comes out, whatever the text says."""
        ids = self._content_cache.get(text)
        if ids is None:
            ids = self._encode_content(text)
            self._content_tokens += len(ids)
            if self._content_tokens > _CACHED_TOKENS:
                self._content_cache.clear()
                self._content_tokens = len(ids)
            _remember(self._content_cache, text, ids)
        return ids

    def build(
        self, prompt: Sequence[Message], answer: str | None, memory_tokens: int = 0, history: Sequence[Message] = ()
    ) -> TokenSequence:
        """Build the token sequence of one sample.

        Args:
            prompt: the opening system messages, if any, and the recent turns. Memory opens its first user
                message.
            answer: the assistant's message; None ends the sequence with the generation prompt.
            memory_tokens: placeholders to write; 0 writes no memory tokens at all.
            history: older messages that stay text; they come after the opening system messages.

        Returns:
            The sequence, at most ``max_seq_length`` long. To fit, text is dropped oldest first: history,
            then the prompt's turns, opening system messages last; never the answer, never memory.

        Raises:
            DataError: memory, answer and the template alone are too long, or the prompt has no user message
                for memory to stand in.
        """
        turns, droppable, bearer = self._arrange(prompt, history, bool(memory_tokens))
        offered = sum(len(self.encode_content(message.content)) for message in (*history, *prompt))
        answer_ids: list[int] = [] if answer is None else [*self.encode_content(answer), *self.closing_ids]
        fixed = len(answer_ids) + with_marks(memory_tokens)
        markup, turns = self._fit(turns, droppable, fixed)

        ids: list[int] = []
        for opening, turn in zip(markup, turns, strict=False):
            ids += opening
            if turn is bearer and memory_tokens:
                ids += [self.memory.start, *[self.memory.placeholder] * memory_tokens, self.memory.end]
            ids += turn.ids
        ids += markup[-1]
        labels = [IGNORED] * len(ids) + answer_ids
        dropped = offered - sum(len(turn.ids) for turn in turns)
        return TokenSequence(ids + answer_ids, labels, memory_tokens, dropped)

    def _arrange(
        self, prompt: Sequence[Message], history: Sequence[Message], with_memory: bool
    ) -> tuple[list[_Turn], list[_Turn], _Turn | None]:
        """Return turns in the order of the sequence, the same in the order of dropping, and the one with memory."""
        old = [_Turn(message.role, list(self.encode_content(message.content))) for message in history]
        new = [_Turn(message.role, list(self.encode_content(message.content))) for message in prompt]
        bearer = next((turn for turn in new if turn.role == "user"), None)
        if with_memory:
            if bearer is None:
                raise DataError.of(
                    "prompt",
                    "has no user message for memory to stand in",
                    "Keep at least one user turn in the prompt (data.recent_turns)",
                )
            bearer.pinned = True
            if self._alternates:
                for turn in new[new.index(bearer) :]:
                    turn.pinned = True
        if new:
            new[-1].pinned = True
        head = next((index for index, turn in enumerate(new) if turn.role != "system"), len(new))
        return [*new[:head], *old, *new[head:]], [*old, *new[head:], *new[:head]], bearer

    def _fit(self, turns: list[_Turn], droppable: list[_Turn], fixed: int) -> tuple[list[tuple[int, ...]], list[_Turn]]:
        """Drop the fewest oldest turns, then the oldest tokens of the next one, so that all fits."""

        def layout(count: int) -> tuple[list[tuple[int, ...]], list[_Turn], int]:
            gone = {id(turn) for turn in droppable[:count] if not turn.pinned}
            emptied = {id(turn) for turn in droppable[:count] if turn.pinned}
            kept = [turn for turn in turns if id(turn) not in gone]
            markup = self._markup([turn.role for turn in kept], generation=True)
            content = sum(len(turn.ids) for turn in kept if id(turn) not in emptied)
            return markup, kept, self.max_seq_length - fixed - sum(map(len, markup)) - content

        def fits(count: int) -> bool:
            # The turn after the dropped ones may shrink, to one token if that keeps it in the sequence.
            slack = 0
            if count < len(droppable):
                turn = droppable[count]
                slack = len(turn.ids) if turn.pinned else max(len(turn.ids) - 1, 0)
            return layout(count)[2] + slack >= 0

        markup, kept, room = layout(0)
        if room >= 0:
            return markup, kept
        counts: Sequence[int] = range(len(droppable) + 1)
        if self._alternates:  # a user's turn comes first
            stays = next((place for place, turn in enumerate(droppable) if turn.pinned), len(droppable))
            counts = [count for count in counts if count >= stays or droppable[count].role == "user"]
        place = bisect_left(counts, True, key=fits)
        if place == len(counts):
            room = layout(len(droppable))[2]
            raise DataError.of(
                "sequence",
                f"memory, answer and the chat template's own tokens take {self.max_seq_length - room} "
                f"tokens, more than max_seq_length {self.max_seq_length}",
                "Raise model.max_seq_length",
            )
        count = counts[place]
        markup, kept, room = layout(count)
        for turn in droppable[:count]:
            turn.ids = []
        if room < 0:
            shrunk = droppable[count]
            shrunk.ids = shrunk.ids[-room:]
        return markup, kept

    def _markup_length(self, roles: Sequence[str]) -> int:
        """Return the number of tokens that the template writes for ``roles`` in front of a user's turn."""
        # A number for each length of conversation, unlike the parts, can be kept for long ones too: counting every
        # history of a conversation would otherwise render the template over all messages for each of its turns.
        key = " ".join(roles)
        length = self._length_cache.get(key)
        if length is None:
            # The end of a conversation may begin with an answer; it then counts with an empty question.
            answer_first = self._alternates and bool(roles) and roles[0] == "assistant"
            whole = [*(["user"] if answer_first else []), *roles, "user"]
            length = sum(map(len, self._markup(whole))) - sum(map(len, self._markup(["user"])))
            _remember(self._length_cache, key, length)
        return length

    def _markup(self, roles: Sequence[str], generation: bool = False) -> list[tuple[int, ...]]:
        """Return the token ids of what the template writes before, between and after the contents of ``roles``."""
        key: tuple[bool | str, ...] = (generation, *roles)
        ids = self._template_cache.get(key)
        if ids is None:
            if generation and not self._writes_generation_prompt:
                parts = self._render([*roles, "assistant"], False)[:-1]
            else:
                parts = self._render(roles, generation)
            ids = [self._encode_markup(part) for part in parts]
            if len(roles) <= _CACHED_ROLES:
                _remember(self._template_cache, key, ids)
        return ids

    def _render(self, roles: Sequence[str], generation: bool) -> list[str]:
        """Render the chat template over sentinels and split it at them: one part more than ``roles``."""
        messages = [{"role": role, "content": _SENTINEL.format(index=index)} for index, role in enumerate(roles)]
        if self._merges_system:
            messages = _with_system_in_user(messages)
        try:
            text = str(
                self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=generation, **self._template_options
                )
            )
        except TemplateError as error:
            raise DataError.of(
                "chat template",
                f"refuses messages with the roles {', '.join(roles)} ({error})",
                "Remove such conversations, or use a base model whose template accepts them",
            ) from None
        pieces = _SENTINEL_PATTERN.split(text)
        if [int(number) for number in pieces[1::2]] != list(range(len(roles))):
            raise ModelError.of(
                "model.base_model_name",
                f"the chat template does not write each of the messages {', '.join(roles)} once and in order",
                "Use a base model whose template keeps every message",
            )
        return pieces[::2]

    def _accepts(self, roles: Sequence[str]) -> bool:
        """Tell whether the template writes messages of these roles, each once and in order."""
        try:
            self._render(roles, False)
        except (DataError, ModelError):
            return False
        return True

    def _encode_markup(self, text: str) -> tuple[int, ...]:
        ids = self._markup_cache.get(text)
        if ids is None:
            ids = tuple(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
            _remember(self._markup_cache, text, ids)
        return ids

    def _encode_content(self, text: str) -> tuple[int, ...]:
        ids = self._encode_plain(text)
        if not self._control.keys().isdisjoint(ids):
            # Some vocabularies hold the control token's text as an ordinary word too.
            ids = tuple(token for piece in self._cut.split(text) for token in self._encode_plain(piece))
        return ids

    def _encode_plain(self, text: str) -> tuple[int, ...]:
        # A tokenizer does not accept lone surrogates; they become the escape that the renderer draws.
        valid = re.sub("[\ud800-\udfff]", lambda match: f"[U+{ord(match[0]):04X}]", text)
        encoded = self.tokenizer(valid, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return tuple(encoded["input_ids"])

    def _control_tokens(self) -> dict[int, str]:
        """Return tokens that content must never give, the unknown word's excepted: the text may well be unknown."""
        added = self.tokenizer.added_tokens_decoder
        control = {number: token.content for number, token in added.items() if token.special}
        control.pop(self.tokenizer.unk_token_id, None)
        memory = self.memory
        for number in (memory.start, memory.placeholder, memory.end):
            # Around memory may stand ordinary text, which content may well give.
            if number in added or number == memory.placeholder:
                control[number] = str(self.tokenizer.convert_ids_to_tokens(number))
        return control

    def _closing(self) -> tuple[int, ...]:
        """Return what ends an answer: the template's tokens up to its first special one, or the tokenizer's eos."""
        tail = self._markup(["user", "assistant"])[-1]
        for position, token in enumerate(tail):
            if token in self._control:
                return tail[: position + 1]
        if self.tokenizer.eos_token_id is None:
            raise ModelError.of(
                "model.base_model_name",
                "neither the chat template nor the tokenizer has a token that ends an answer",
                f"Use a chat model such as {EXAMPLE}",
            )
        return (self.tokenizer.eos_token_id,)


def _with_system_in_user(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Put opening system messages into the user message behind them."""
    opening = len(list(takewhile(lambda message: message["role"] == "system", messages)))
    if not opening or [message["role"] for message in messages[opening : opening + 1]] != ["user"]:
        return messages
    content = "\n\n".join(message["content"] for message in messages[: opening + 1])
    return [{"role": "user", "content": content}, *messages[opening + 1 :]]


def _remember(cache: dict[Key, Ids], key: Key, ids: Ids) -> None:
    if len(cache) >= _CACHE_ENTRIES:
        cache.clear()
    cache[key] = ids
