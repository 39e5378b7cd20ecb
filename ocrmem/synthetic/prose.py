"""Prose that a chat model writes itself: what it is asked for, which of it is used, and conversations made of it.

Nothing here knows a model: `prose_conversations` is given a function that writes. Each conversation opens with one text
and asks how a few of its words go on, so that every objective of `train.stages` has something to learn from it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from ocrmem.errors import ModelError
from ocrmem.synthetic.notes import Phrases, load_phrases

BATCH = 64  # texts that are asked for at once, all of one length
_LEAST_WORDS = 12
_LEAST_USED = 0.1  # share of a batch; a model that writes less is none for this
_DISTINCT = 0.9  # share of a text's triples of words that are there once, at least
_PUNCTUATION = "‘’“”–—…•€£°·"
_USUAL = re.compile(rf"[ -~\n{_PUNCTUATION}]+")
_LONGEST_ANSWER = 6  # words
_ENDS = ".,!?;:)]”*"
_QUOTED = (3, 5)  # words of a quote, from and to
_WHOLE = re.compile(r".*(?:[.!?][\"”’)]?(?=\s)|\n)", re.DOTALL)  # up to the end of the last whole sentence or line


class Request(NamedTuple):
    """What a model is asked to write.

    Attributes:
        prompt: the user's message.
        start: the beginning of its answer, which is part of the text.
    """

    prompt: str
    start: str


class Written(NamedTuple):
    """What a model wrote: the text with its start, and whether it came to an end of its own."""

    text: str
    ended: bool


# Writes the texts of requests: called with them, the words of each text and a seed.
Write = Callable[[Sequence[Request], int, str], Sequence[Written]]


@dataclass(frozen=True)
class Prompts:
    """What requests are made of: prose_en.json beside this file.

    Attributes:
        requests: with ``{kind}``, ``{topic}`` and ``{detail}``.
        kinds: of texts, each with possible beginnings.
        topics: what they are about.
        details: what they are to mention.
        codes: patterns of ``{code}``.
        questions: with ``{quote}``.
    """

    requests: tuple[str, ...]
    kinds: dict[str, tuple[str, ...]]
    topics: tuple[str, ...]
    details: tuple[str, ...]
    codes: tuple[str, ...]
    questions: tuple[str, ...]

    def request(self, rng: random.Random, phrases: Phrases) -> Request:
        """Draw a request; places in it that it does not know itself are lists of the notes' words."""
        kind = rng.choice(list(self.kinds))
        lists = {"topic": self.topics, "detail": self.details, "person": ("{first} {last}",), "code": self.codes}

        def filled(template: str) -> str:
            pattern = "|".join(lists)
            while re.search(rf"{{({pattern})}}", template):
                template = re.sub(rf"{{({pattern})}}", lambda found: rng.choice(lists[found[1]]), template)
            return phrases.draw(rng, template)

        prompt = filled(rng.choice(self.requests).replace("{kind}", kind))
        return Request(prompt[0].upper() + prompt[1:], filled(rng.choice(self.kinds[kind])))


@cache
def load_prompts() -> Prompts:
    """Read prose_en.json."""
    text = files("ocrmem.synthetic").joinpath("prose_en.json").read_text(encoding="utf-8")
    return TypeAdapter(Prompts).validate_json(text)


def prose_conversations(count: int, seed: int, words: int, write: Write) -> Iterator[dict[str, Any]]:
    """Generate conversations in OpenAI form, each about a text that ``write`` returned.

    Args:
        count: how many.
        seed: another seed gives other requests.
        words: of a text, about; each batch draws half to one and a half times as many.
        write: the model.

    Yields:
        ``{"id", "messages"}``: the text, a question for the words that follow a quote from it, and these.

    Raises:
        ModelError: hardly anything that was written can be used.
    """
    phrases, prompts = load_phrases(), load_prompts()
    made = batch = 0
    while made < count:
        name = f"prose-{seed}-{batch:04d}"
        rng = random.Random(name)
        length = int(words * rng.uniform(0.5, 1.5))
        requests = [prompts.request(rng, phrases) for _ in range(BATCH)]
        conversations = []
        for text in map(usable, write(requests, length, name)):
            cloze = quoted(rng, text) if text else None
            if cloze:
                conversations.append(_conversation(rng, phrases, prompts, text, *cloze))
        if len(conversations) < _LEAST_USED * BATCH:
            message = f"of {BATCH} texts that it wrote {len(conversations)} can be used; the others repeat themselves"
            raise ModelError.of("model.base_model_name", message, "Name a chat model that writes English")
        for messages in conversations[: count - made]:
            yield {"id": f"prose-{seed}-{made:05d}", "messages": messages}
            made += 1
        batch += 1


def usable(written: Written) -> str:
    """Return a text up to its last whole sentence; "" if it is too short, repeats itself or has odd characters."""
    text = written.text.strip()
    if not written.ended:
        whole = _WHOLE.match(text)
        text = whole[0].strip() if whole else ""
    said = text.lower().split()
    triples = list(zip(said, said[1:], said[2:], strict=False))
    if len(said) < _LEAST_WORDS or not _USUAL.fullmatch(text) or len(set(triples)) < _DISTINCT * len(triples):
        return ""
    return text


def quoted(rng: random.Random, text: str) -> tuple[str, str] | None:
    """Draw a quote that a text has once, and the words that follow it up to the next punctuation mark.

    Returns:
        Both, or None if nothing of the text can be quoted.
    """
    lines = [line.split(" ") for line in text.split("\n")]
    places = [(line, start) for line in lines for start in range(len(line))]
    for line, start in rng.sample(places, len(places)):
        end = start + rng.randint(*_QUOTED)
        quote, answer = " ".join(line[start:end]), " ".join(_phrase(line[end:]))
        if answer and quote[-1].isalnum() and '"' not in quote + answer and text.count(quote) == 1:
            return quote, answer
    return None


def _phrase(words: Sequence[str]) -> Iterator[str]:
    """Yield the first words of a line, up to a punctuation mark."""
    for word in words[:_LONGEST_ANSWER]:
        yield word.rstrip(_ENDS)
        if word != word.rstrip(_ENDS):
            return


def _conversation(
    rng: random.Random, phrases: Phrases, prompts: Prompts, text: str, quote: str, answer: str
) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": phrases.system},
        {"role": "user", "content": text},
        {"role": "assistant", "content": rng.choice(phrases.acknowledgements), "weight": 0},
        {"role": "user", "content": rng.choice(prompts.questions).format(quote=quote)},
        {"role": "assistant", "content": answer},
    ]
