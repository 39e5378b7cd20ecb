"""Recall conversations in ordinary English or Chinese.

Early in a conversation the user mentions a few facts; many turns of other talk later one of them is asked. Its value
stands in no message but the one that states it, so the answer is in the history or nowhere.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

from ocrmem.errors import ConfigError
from ocrmem.synthetic.phrases import FactKind, Language, LanguageName, load_language

_HELD_OUT = 5  # one value in five is kept for held-out conversations
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_ATTEMPTS = 200


def chat_conversations(
    count: int,
    seed: int,
    language: LanguageName = "en",
    turns: int = 30,
    facts: int = 5,
    *,
    held_out: bool = False,
    counterfactual: bool = False,
) -> Iterator[dict[str, Any]]:
    """Generate conversations in OpenAI form.

    Args:
        count: how many.
        seed: another seed gives other conversations; the same gives the same on every machine.
        language: "en" or "zh".
        turns: user turns, the question at the end included.
        facts: facts stated in the first half, of which one is asked.
        held_out: draw values that are never drawn otherwise, so that no fact was seen in training.
        counterfactual: the same conversations with only the asked value changed.

    Yields:
        ``{"id", "messages", "asked", "answer"}``; all assistant messages but the last have weight 0, since
        only the last can be known from the conversation.

    Raises:
        ConfigError: the numbers contradict each other.
    """
    phrases = load_language(language)
    if not 1 <= facts <= min(len(phrases.facts), turns - 1):
        message = f"{facts} facts do not fit into {turns} turns ({len(phrases.facts)} kinds of facts are known)"
        raise ConfigError.of("synth", message, "Use at least one fact, no more than kinds, and fewer than turns")
    part = "eval" if held_out else "train"
    for index in range(count):
        name = f"{language}-{part}-{seed}-{index:05d}"
        # Seeding with text goes through sha512: the same in every process, unlike hash().
        conversation = _conversation(random.Random(name), phrases, turns, facts, held_out, counterfactual)
        yield {"id": f"{name}-changed" if counterfactual else name, **conversation}


def _conversation(
    rng: random.Random, phrases: Language, turns: int, facts: int, held_out: bool, counterfactual: bool
) -> dict[str, Any]:
    kinds = rng.sample(phrases.facts, facts)
    asked = rng.randrange(facts)
    while True:
        values = [_value(rng, kind, held_out) for kind in kinds]
        other = _value(rng, kinds[asked], held_out)
        told = [value for n, value in enumerate(values) if n != asked]
        # A room 123 must not stand in an order 12345 as well.
        if other != values[asked] and not any(v in t or t in v for v in (values[asked], other) for t in told):
            break
    first_half = max(facts, (turns - 1) // 2)
    at = sorted(rng.sample(range(first_half), facts))
    statements = [rng.choice(kind.statements) for kind in kinds]
    replies = [rng.choice(kind.replies) for kind in kinds]
    question = rng.choice(kinds[asked].questions)
    talk = _talk(rng, phrases, turns - 1 - facts, (*values, other))
    if counterfactual:
        values[asked] = other

    messages: list[dict[str, Any]] = [{"role": "system", "content": phrases.system}]
    stated = iter(zip(statements, values, replies, strict=True))
    for turn in range(turns - 1):
        if turn in at:
            statement, value, reply = next(stated)
            said = statement.format(value=value)
        else:
            said, reply = next(talk)
        messages += {"role": "user", "content": said}, {"role": "assistant", "content": reply, "weight": 0}
    messages += {"role": "user", "content": question}, {"role": "assistant", "content": values[asked]}
    return {"messages": messages, "asked": kinds[asked].name, "answer": values[asked]}


def _value(rng: random.Random, kind: FactKind, held_out: bool) -> str:
    if len(kind.values) > 1:
        return rng.choice([v for n, v in enumerate(kind.values) if (n % _HELD_OUT == 0) == held_out])
    while True:
        text = re.sub("#", lambda _: str(rng.randrange(10)), kind.values[0])
        text = re.sub("@", lambda _: rng.choice(_LETTERS), text)
        if (int(re.sub("[^0-9]", "", text)) % _HELD_OUT == 0) == held_out:
            return text


def _talk(rng: random.Random, phrases: Language, count: int, values: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Make ordinary turns, none of which holds one of the values; a template comes again only after all others."""
    deck: list[tuple[str, str]] = []
    made: list[tuple[str, str]] = []
    for _ in range(2 * count + _ATTEMPTS):
        if len(made) == count:
            return iter(made)
        deck = deck or rng.sample(phrases.talk, len(phrases.talk))
        said, reply = deck.pop()
        words = {slot: rng.choice(choices) for slot, choices in phrases.slots.items()}
        said = rng.choice(phrases.openers) + said.format(**words)
        reply = reply.format(**words) + rng.choice(phrases.closers)
        if not any(value in said or value in reply for value in values):
            made.append((said, reply))
    raise ConfigError.of("synth", "no talk without the asked value could be made", "Use another seed or fewer turns")
