"""Running the model on prepared cases: the loss of the right answer, and what greedy decoding says."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ocrmem.dataset.sequence import TokenSequence
from ocrmem.facts import IGNORED
from ocrmem.model.collator import pad_sequences
from ocrmem.model.modeling import MEMModel
from ocrmem.model.prefix_cache import PrefixCache

# Scripts that put no space between words (or, Korean, hang endings on them), by how Unicode's names begin.
_UNSPACED = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR")
_END_OF_SENTENCE = " .!?…。"
_INSIDE_A_NUMBER = re.compile(r"\d[.,:]\d")


@dataclass(frozen=True)
class Case:
    """One question as the model gets it."""

    sample_id: str  # of the sample that it was made from
    supervised: TokenSequence  # prompt and right answer, for the loss
    question: TokenSequence  # the same up to the generation prompt, for the recall
    answer: str  # the right one
    features: torch.Tensor | None = None  # vision tokens for the placeholders [m, d]
    embeddings: torch.Tensor | None = None  # ready embeddings for the placeholders [m, H]


@dataclass(frozen=True)
class Scored:
    """What the model made of a case."""

    sample_id: str
    loss_sum: float  # negative log likelihood of the answer's tokens, end token included, summed
    answer_tokens: int  # how many those are
    said: str  # what greedy decoding gave
    right: bool  # whether that is the answer, white space aside
    tokens: int  # length of the sequence that the model read, without the answer
    contains: bool  # whether the answer occurs in it


@dataclass
class Scorer:
    """Scores cases in batches."""

    model: MEMModel  # with proj loaded; no encoder is needed
    tokenizer: PreTrainedTokenizerBase
    end_token_id: int  # ends an answer
    _: KW_ONLY
    batch_size: int  # cases at once
    max_new_tokens: int  # most tokens of a generated answer

    @property
    def _pad(self) -> int:
        pad: int | None = self.tokenizer.pad_token_id
        return self.end_token_id if pad is None else pad

    def score(self, cases: Sequence[Case], done: Callable[[int], None] = lambda count: None) -> list[Scored]:
        """Compute loss and answer of every case, in the order given; cases of like length are run together.

        ``done`` is called with the number of cases of each finished batch.
        """
        order = sorted(range(len(cases)), key=lambda index: len(cases[index].supervised.input_ids))
        results: dict[int, Scored] = {}
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            batch = [cases[index] for index in chosen]
            for index, loss, said in zip(chosen, self._losses(batch), self.answers(batch), strict=True):
                case = cases[index]
                expected, answer = self._as_decoded(case.answer), case.supervised.answer_tokens
                right, contains = is_right(said, expected), is_contained(said, expected)
                tokens = len(case.question.input_ids)
                results[index] = Scored(case.sample_id, loss, answer, said, right, tokens, contains)
            done(len(chosen))
        return [results[index] for index in range(len(cases))]

    def answers(self, cases: Sequence[Case], prefix: PrefixCache | None = None) -> list[str]:
        """Answer each case's question by greedy decoding.

        Args:
            cases: one batch.
            prefix: of the questions before, for a case alone; see `MEMModel.generate`.
        """
        found = []
        for ids in self._generate(cases, self.max_new_tokens, self.end_token_id, prefix).tolist():
            kept = itertools.takewhile(lambda token: token != self.end_token_id, ids)
            found.append(str(self.tokenizer.decode(list(kept), skip_special_tokens=True)))
        return found

    def write(self, case: Case, tokens: int) -> None:
        """Generate exactly ``tokens`` tokens and forget them: for timing."""
        # No token has this number, so nothing ends the answer early.
        never = self.model.base_llm_model.config.get_text_config().vocab_size
        self._generate([case], tokens, never)

    def can_say(self, text: str) -> bool:
        """Return whether the vocabulary has all of a text."""
        return bool(self._as_decoded(text))

    def _as_decoded(self, text: str) -> str:
        """Return ``text`` after the tokenizer's round trip, as a model that says exactly this is heard."""
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        unknown = self.tokenizer.unk_token_id
        # An answer with words that the vocabulary lacks can never be said.
        return "" if unknown is not None and unknown in ids else str(self.tokenizer.decode(ids))

    @torch.no_grad()
    def _generate(
        self, cases: Sequence[Case], tokens: int, end_token_id: int, prefix: PrefixCache | None = None
    ) -> torch.Tensor:
        _, inputs = self._inputs(cases, [case.question for case in cases])
        return self.model.generate(
            **inputs, max_new_tokens=tokens, eos_token_id=end_token_id, pad_token_id=self._pad, prefix=prefix
        )

    @torch.no_grad()
    def _losses(self, cases: Sequence[Case]) -> list[float]:
        """Return the summed loss of each case's answer."""
        labels, inputs = self._inputs(cases, [case.supervised for case in cases])
        # Padding on the left puts every answer at the end, so only those positions get logits: all of them
        # would be gigabytes for a real vocabulary. `forward` with labels gives one loss for the whole batch.
        longest = max(case.supervised.answer_tokens for case in cases)
        logits = self.model(**inputs, logits_to_keep=longest + 1).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(
            logits.float().transpose(1, 2), labels[:, -longest:], ignore_index=IGNORED, reduction="none"
        )
        return [float(loss) for loss in losses.double().sum(1)]

    def _inputs(self, cases: Sequence[Case], sequences: Sequence[TokenSequence]) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return labels [B, L], and ids, mask [B, L] and memory for the model; on its device, padded on the left."""
        inputs = pad_sequences(sequences, self._pad, left=True)
        for name in ("features", "embeddings"):
            parts = [value for case in cases if (value := getattr(case, name)) is not None]
            if parts:
                inputs[f"memory_{name}"] = torch.cat(parts)
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        return inputs.pop("labels"), inputs


def is_right(said: str, expected: str) -> bool:
    """Compare two texts, white space aside. Nothing matches an answer that cannot be said (empty)."""
    return bool(expected.split()) and said.split() == expected.split()


def is_contained(said: str, expected: str) -> bool:
    """Return whether ``expected`` occurs in ``said`` as whole words: case, white space, a full stop at its end aside.

    Where a script writes no spaces, it may stand anywhere. Nothing contains an answer that cannot be said (empty).
    """
    heard, wanted = _plain(said), _plain(expected)
    wanted = wanted.rstrip(_END_OF_SENTENCE) or wanted
    places = range(len(heard) - len(wanted) + 1) if wanted else ()
    return any(
        heard.startswith(wanted, place)
        and not _is_inside_a_word(heard, place)
        and not _is_inside_a_word(heard, place + len(wanted))
        for place in places
    )


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _is_inside_a_word(text: str, place: int) -> bool:
    """Return whether a word, or a number with its separator, goes on from before ``place`` to behind it."""
    if any(_INSIDE_A_NUMBER.match(text, start) for start in range(max(0, place - 2), place)):
        return True
    return 0 < place < len(text) and _is_of_spaced_word(text[place - 1]) and _is_of_spaced_word(text[place])


def _is_of_spaced_word(character: str) -> bool:
    is_of_word = character.isalnum() or unicodedata.category(character).startswith("M")
    return is_of_word and not unicodedata.name(character, "").startswith(_UNSPACED)
