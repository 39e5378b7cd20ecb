"""Notes in plain English that state facts of many kinds, and questions about them.

A conversation opens with a few notes: sentences that state facts among sentences that state none, or lists in which a
fact is little more than a name and a value. The facts are about people, things, plans and the writer. Then come
questions, each asked of one fact and answered in a few words. The same person has several facts and several people have
facts of one kind, so a name or a kind alone gives no answer away; most codes and numbers are drawn digit by digit.

Which facts are held out is decided by a hash over who or what, the kind and the value: training never states one that
held-out conversations do. Half of the held-out conversations also ask in a phrasing that training never uses.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from ocrmem.errors import ConfigError

QUESTIONS = 4  # of a conversation, at most; of plain notes in training, as many as they state facts
REPHRASED = "-rephrased"  # ends the id of a held-out conversation whose phrasings are held out too
_HELD_OUT = 10  # one fact in ten
_SAME_KIND_SHARE = 0.35  # facts of a kind that the conversation states already
_ABOUT_SHARE = 0.4  # sentences without a fact that speak of someone who has facts
_FIRST_NAME_SHARE = 0.6  # people named before in a note who are then called by their first name
_PARAGRAPH_SHARE = 0.1  # sentences that end a paragraph
_FORMS = (" ", " ", " ", "\n", "- ", "* ", "• ")  # of a note: what separates its sentences, or marks its lines
_TERSE_IN_LISTS, _TERSE_ELSEWHERE = 0.6, 0.1  # facts that are stated without a sentence
_PLAIN_FIRST, _PLAIN_WORDS = 100, 40  # first names, and words of each other list, in plain notes
_PLAIN_SYSTEM = "Answer from the notes."
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_ATTEMPTS = 10_000


class Shares(NamedTuple):
    """How often what notes and questions have.

    Attributes:
        person, own: facts about people, and about the writer; the others are about things, places and so on.
        kin: people who are "my sister", not a name.
        embedded: statements with a few words before or behind them.
        keyed: questions that name what they ask for as a list would.
        together: conversations that ask several questions in one message, numbered.
        holder: questions of plain notes in training that ask for the person.
    """

    person: float = 0.5
    own: float = 0.2
    kin: float = 0.25
    embedded: float = 0.25
    keyed: float = 0.3
    together: float = 0.0
    holder: float = 0.0


_RICH = Shares()


@dataclass(frozen=True)
class Relation:
    """A kind of fact.

    Attributes:
        name: short name, part of no text.
        key: what a list calls it, behind ``the``.
        of: what it is said of: "person", "self" for the writer, or a list of words.
        value: what it may be: ``{list}`` is a word of that list, ``#`` a digit, ``@`` a letter.
        statements: with ``{s}`` for the subject unless it is the writer, ``{v}`` for the value and ``{an}`` for its
            article.
        questions: with ``{s}``; the last is for held-out conversations only.
        holders: questions for whom it is said of, with ``{v}`` and ``{an}``; only the kinds in plain notes have some.
    """

    name: str
    of: str
    key: str
    value: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    holders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Phrases:
    """What notes are made of: notes_en.json beside this file.

    Attributes:
        system: the system message.
        openings: first sentences of notes.
        talk: sentences that state nothing.
        about: the same, about someone (``{s}``).
        acknowledgements: the assistant's, after a note.
        lead_ins: in front of a question.
        before: in front of a statement.
        behind: in place of its full stop.
        terse: facts without a sentence, with ``{s}``, ``{v}`` and ``{key}``.
        own_terse: the same about the writer, without ``{s}``.
        asking: questions with ``{s}`` and ``{key}``.
        own_asking: the same to the writer.
        words: lists of words, each one text with commas.
        relations: the kinds of facts.
        shares: of what is drawn.
        person: template of a person's name.
        in_one: whether all notes are one message, and all questions another.
    """

    system: str
    openings: tuple[str, ...]
    talk: tuple[str, ...]
    about: tuple[str, ...]
    acknowledgements: tuple[str, ...]
    lead_ins: tuple[str, ...]
    before: tuple[str, ...]
    behind: tuple[str, ...]
    terse: tuple[str, ...]
    own_terse: tuple[str, ...]
    asking: tuple[str, ...]
    own_asking: tuple[str, ...]
    words: dict[str, str]
    relations: tuple[Relation, ...]
    shares: Shares = _RICH
    person: str = "{first} {last}"
    in_one: bool = False

    def plain(self, kinds: Sequence[str] = ()) -> Phrases:
        """Return what plain notes are made of: people by their first names, and facts whose values are common words.

        Raises:
            ConfigError: a kind that plain notes do not have.
        """
        there = {relation.name: relation for relation in self.relations if relation.holders}
        if unknown := sorted(set(kinds) - there.keys()):
            raise ConfigError.of("--kinds", f"has {', '.join(unknown)}", f"Plain notes have {', '.join(there)}")
        counts = {"first": _PLAIN_FIRST} | dict.fromkeys(("city", "job", "petname", "country"), _PLAIN_WORDS)
        return replace(
            self,
            system=_PLAIN_SYSTEM,
            words=self.words | {name: ", ".join(self._list(name)[:count]) for name, count in counts.items()},
            relations=tuple(relation for name, relation in there.items() if not kinds or name in kinds),
            shares=Shares(person=1.0, own=0.0, kin=0.0, embedded=0.05, keyed=0.05, together=0.6, holder=0.5),
            person="{first}",
            in_one=True,
        )

    def draw(self, rng: random.Random, template: str) -> str:
        """Fill ``{list}``, ``#`` and ``@`` of a template, and of the words that are filled in."""
        text = template
        while "{" in text:
            text = re.sub(r"\{(\w+)\}", lambda match: rng.choice(self._list(match[1])), text)
        text = re.sub("#", lambda _: rng.choice("0123456789"), text)
        return re.sub("@", lambda _: rng.choice(_LETTERS), text)

    def name(self, rng: random.Random) -> str:
        """Draw a person's name."""
        return self.draw(rng, self.person)

    def _list(self, name: str) -> list[str]:
        return _split(self.words[name])


@dataclass(frozen=True)
class Fact:
    """One thing that a note states; the writer as its subject is ""."""

    subject: str
    relation: Relation
    value: str

    @property
    def held_out(self) -> bool:
        """Whether it is kept for held-out conversations."""
        return zlib.crc32(f"{self.subject}|{self.relation.name}|{self.value}".encode()) % _HELD_OUT == 0


@dataclass(frozen=True)
class Sentence:
    """A sentence of a note.

    Attributes:
        template: with the places of a statement, or none.
        subject: as it is called here.
        fact: what it states, if anything.
        mark: what opens its line in a list.
        end: what stands between it and the next one.
    """

    template: str
    subject: str = ""
    fact: Fact | None = None
    mark: str = ""
    end: str = " "

    @property
    def text(self) -> str:
        """What is written."""
        value = self.fact.value if self.fact else ""
        text = self.template.format(s=self.subject, v=value, an=_article(value))
        return self.mark + text if self.mark else text[0].upper() + text[1:]


@cache
def load_phrases() -> Phrases:
    """Read notes_en.json."""
    text = files("ocrmem.synthetic").joinpath("notes_en.json").read_text(encoding="utf-8")
    return TypeAdapter(Phrases).validate_json(text)


@cache
def _split(words: str) -> list[str]:
    return words.split(", ")


def note_conversations(
    count: int,
    seed: int,
    facts: int = 8,
    words: int = 120,
    *,
    held_out: bool = False,
    counterfactual: bool = False,
    plain: bool = False,
    kinds: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Generate conversations in OpenAI form.

    Args:
        count: how many.
        seed: another seed gives other conversations; the same gives the same on every machine.
        facts: facts that a conversation's notes state.
        words: of all its notes together, about; each conversation draws half to one and a half times as many, and
            never fewer than its facts take.
        held_out: state facts that training never states.
        counterfactual: the same conversations with only the value changed that the last question asks for; earlier
            answers have weight 0.
        plain: one note of facts about people by their first names, whose values are common words; then one question,
            or in training several in one message, numbered.
        kinds: of facts in plain notes, by the names of their relations; none: all of them.

    Yields:
        ``{"id", "messages"}``; the assistant's messages but the answers have weight 0.

    Raises:
        ConfigError: no facts, more than can be told apart, or a kind that plain notes do not have.
    """
    if not 1 <= facts <= 40 or words < 1:
        message = f"{facts} facts in {words} words cannot be told apart"
        raise ConfigError.of("synth", message, "Use 1 to 40 facts (--facts), and words (--words)")
    phrases = load_phrases().plain(kinds) if plain else load_phrases()
    part = "eval" if held_out else "train"
    for index in range(count):
        name = f"en-{part}-{seed}-{index:05d}"
        rephrased = held_out and index % 2 == 1
        # Seeding with text goes through sha512: the same in every process, unlike hash().
        messages = _conversation(random.Random(name), phrases, facts, words, held_out, rephrased, counterfactual)
        name += REPHRASED if rephrased else ""
        yield {"id": f"{name}-changed" if counterfactual else name, "messages": messages}


def _conversation(
    rng: random.Random, phrases: Phrases, facts: int, words: int, held_out: bool, rephrased: bool, changed: bool
) -> list[dict[str, Any]]:
    for _ in range(_ATTEMPTS):
        stated = _draw_facts(rng, phrases, facts, held_out)
        asked = rng.sample(stated, min(QUESTIONS, facts))
        other = _other_value(rng, phrases, asked[-1], stated)
        notes = _notes(rng, phrases, stated, int(words * rng.uniform(0.5, 1.5)))
        told = "\n".join(map(_text, notes))
        if other and not _says(told, other.value) and all(_says(told, fact.value) == 1 for fact in asked):
            break
    else:
        raise ConfigError.of("synth", "no notes could be made whose facts differ", "Use fewer facts (--facts)")
    if phrases.in_one and not held_out:
        told_once = [fact for fact in stated if _says(told, fact.value) == 1]
        return _in_one(rng, phrases, notes, _every_pair(rng, phrases, told_once))
    questions = [_question(rng, phrases, fact, rephrased) for fact in asked]
    if changed:
        notes = [[replace(line, fact=other) if line.fact is asked[-1] else line for line in note] for note in notes]
        asked[-1] = other
    if phrases.in_one:
        return _in_one(rng, phrases, notes, [(questions[-1], asked[-1].value)])
    messages: list[dict[str, Any]] = [{"role": "system", "content": phrases.system}]
    for note in notes:
        reply = rng.choice(phrases.acknowledgements)
        messages += {"role": "user", "content": _text(note)}, {"role": "assistant", "content": reply, "weight": 0}
    for fact, question in zip(asked, questions, strict=True):
        answer = {"role": "assistant", "content": fact.value}
        weightless = changed and fact is not asked[-1]
        messages += {"role": "user", "content": question}, answer | ({"weight": 0} if weightless else {})
    return messages


def _every_pair(rng: random.Random, phrases: Phrases, facts: Sequence[Fact]) -> list[tuple[str, str]]:
    """Return a question and its answer for each fact of a training note, which is then at no page more.

    Names are read, and tied to their values, only where an answer depends on them. So half of the questions ask for the
    person, and the last, which is the one that is asked alone, is of a kind that several people have, if there is one.
    """
    rivals = [fact for fact in facts if sum(fact.relation is other.relation for other in facts) > 1]
    last = rng.choice(rivals or facts)
    return [_pair(rng, phrases, fact) for fact in [*(fact for fact in facts if fact is not last), last]]


def _pair(rng: random.Random, phrases: Phrases, fact: Fact) -> tuple[str, str]:
    """Draw a question of training about a fact, and its answer: the value, or whom it is said of."""
    if rng.random() >= phrases.shares.holder:
        return _question(rng, phrases, fact, rephrased=False), fact.value
    question = rng.choice(fact.relation.holders)
    return _led_in(rng, phrases, question, v=fact.value, an=_article(fact.value)), fact.subject


def _in_one(
    rng: random.Random, phrases: Phrases, notes: Sequence[Sequence[Sentence]], pairs: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Put notes into one message, and of the questions with their answers the last, or several, into another."""
    question, answer = pairs[-1]
    if len(pairs) > 1 and rng.random() < phrases.shares.together:
        chosen = rng.sample(pairs, rng.randint(2, len(pairs)))
        question, answer = ("\n".join(f"{n}. {pair[i]}" for n, pair in enumerate(chosen, 1)) for i in (0, 1))
    return [
        {"role": "system", "content": phrases.system},
        {"role": "user", "content": "\n".join(map(_text, notes))},
        {"role": "assistant", "content": "Noted.", "weight": 0},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]


def _text(note: Sequence[Sentence]) -> str:
    return "".join(sentence.text + sentence.end for sentence in note).strip()


def _article(value: str) -> str:
    return "an" if value[:1].lower() in "aeiou" else "a"


def _says(text: str, value: str) -> int:
    """Return how often a text says a value, as words of its own."""
    return len(re.findall(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE))


def _draw_facts(rng: random.Random, phrases: Phrases, count: int, held_out: bool) -> list[Fact]:
    """Draw facts no two of which have a value, or subject and kind, in common."""
    people: list[str] = []
    while len(people) < 2 + count // 3:
        name = phrases.draw(rng, "{kin}") if rng.random() < phrases.shares.kin else phrases.name(rng)
        if not any(set(_names(name)) & set(_names(other)) for other in people):
            people.append(name)
    kinds: dict[str, list[Relation]] = {}
    for relation in phrases.relations:
        kinds.setdefault(relation.of if relation.of in ("person", "self") else "others", []).append(relation)
    person, own, *_ = phrases.shares
    shares = {"person": person, "self": own, "others": 1 - person - own}
    shares = {kind: share for kind, share in shares.items() if share}
    facts: list[Fact] = []
    for _ in range(_ATTEMPTS):
        if len(facts) == count:
            return facts
        if facts and rng.random() < _SAME_KIND_SHARE:
            relation = rng.choice(facts).relation
        else:
            relation = rng.choice(kinds[rng.choices(list(shares), list(shares.values()))[0]])
        fact = Fact(_subject(rng, phrases, relation, people), relation, _value(rng, phrases, relation))
        told = any(fact.subject == other.subject and relation is other.relation for other in facts)
        if fact.held_out == held_out and not told and not _clashes(fact, facts, people):
            facts.append(fact)
    raise ConfigError.of("synth", f"{count} facts that differ could not be drawn", "Use fewer facts (--facts)")


def _subject(rng: random.Random, phrases: Phrases, relation: Relation, people: Sequence[str]) -> str:
    if relation.of == "self":
        return ""
    return rng.choice(people) if relation.of == "person" else phrases.draw(rng, f"{{{relation.of}}}")


def _names(person: str) -> list[str]:
    """Return first name and surname; "my sister" is one name."""
    return [person] if person.startswith("my ") else person.split()


def _value(rng: random.Random, phrases: Phrases, relation: Relation) -> str:
    return phrases.name(rng) if relation.value == "{name}" else phrases.draw(rng, relation.value)


def _clashes(fact: Fact, facts: Sequence[Fact], people: Sequence[str]) -> bool:
    """Whether a value could be taken for another one, or for somebody's name."""
    names = [word for person in people for word in _names(person)]
    subjects = filter(None, [fact.subject, *(other.subject for other in facts)])
    taken = [*names, *subjects, *(other.value for other in facts)]
    value = fact.value.lower()
    return any(value in other.lower() or other.lower() in value for other in taken)


def _other_value(rng: random.Random, phrases: Phrases, fact: Fact, facts: Sequence[Fact]) -> Fact | None:
    """Draw the fact with another value, held out if it is; None if there is none at hand."""
    people = [other.subject for other in facts if other.relation.of == "person"]
    for _ in range(200):
        other = replace(fact, value=_value(rng, phrases, fact.relation))
        if other.held_out == fact.held_out and other.value != fact.value and not _clashes(other, facts, people):
            return other
    return None


class _Deck:
    """Choices drawn one after the other; one comes again only after all others."""

    def __init__(self, rng: random.Random, choices: Sequence[str]) -> None:
        self._rng, self._choices = rng, choices
        self._left: list[str] = []

    def draw(self) -> str:
        self._left = self._left or self._rng.sample(self._choices, len(self._choices))
        return self._left.pop()


def _notes(rng: random.Random, phrases: Phrases, facts: Sequence[Fact], words: int) -> list[list[Sentence]]:
    """Spread facts over one to three notes, with sentences between them until there are about so many words."""
    count = rng.randint(1, min(3, len(facts)))
    parts: list[list[Fact | None]] = [[] for _ in range(count)]
    for fact in rng.sample(facts, len(facts)):
        rng.choice(parts).append(fact)
    # A name has a word more than its place in the template, and some statements a few more around them.
    spare = words - sum(len(fact.relation.statements[0].split()) + 2 for fact in facts)
    for _ in range(max(spare // 8, 0)):  # the sentences without a fact have about 8 words
        part = rng.choice(parts)
        part.insert(rng.randint(0, len(part)), None)
    talk, about = _Deck(rng, phrases.talk), _Deck(rng, phrases.about)
    people = [fact.subject for fact in facts if fact.relation.of == "person"]
    notes = []
    for part in filter(None, parts):
        form, opening = rng.choice(_FORMS), phrases.draw(rng, rng.choice(phrases.openings))
        listed = not form.isspace()
        mark, end = (form, "\n") if listed else ("", form)
        note = [Sentence(opening, end=end if opening[-1] in ".!" else "\n")]
        named: set[str] = set()
        for said in part:
            if said:
                subject, template = said.subject, _statement(rng, phrases, said, listed)
            elif people and rng.random() < _ABOUT_SHARE:
                subject, template = rng.choice(people), about.draw()
            else:
                subject, template = "", phrases.draw(rng, talk.draw())
            called = subject
            if subject in people and subject in named and rng.random() < _FIRST_NAME_SHARE:
                called = _names(subject)[0]
            named.add(subject)
            paragraph = not listed and rng.random() < _PARAGRAPH_SHARE
            note.append(Sentence(template, called, said, mark, "\n\n" if paragraph else end))
        notes.append(note)
    return notes


def _statement(rng: random.Random, phrases: Phrases, fact: Fact, listed: bool) -> str:
    """Draw how a fact is stated."""
    if rng.random() < (_TERSE_IN_LISTS if listed else _TERSE_ELSEWHERE):
        template = rng.choice(phrases.terse if fact.subject else phrases.own_terse)
        return template.replace("{key}", fact.relation.key) + ("" if listed else ".")
    template = rng.choice(fact.relation.statements)
    if rng.random() >= phrases.shares.embedded:
        return template
    if rng.random() < 0.5:
        return template.removesuffix(".") + phrases.draw(rng, rng.choice(phrases.behind))
    return phrases.draw(rng, rng.choice(phrases.before)) + _within(template)


def _within(sentence: str) -> str:
    """Return a sentence, or its template, as it is written behind a comma."""
    return sentence if sentence.startswith(("{", "I ")) else sentence[0].lower() + sentence[1:]


def _question(rng: random.Random, phrases: Phrases, fact: Fact, rephrased: bool) -> str:
    """Ask for a fact's value."""
    *familiar, question = fact.relation.questions
    if not rephrased:
        keyed = rng.random() < phrases.shares.keyed
        question = rng.choice((phrases.asking if fact.subject else phrases.own_asking) if keyed else familiar)
    return _led_in(rng, phrases, question, s=fact.subject, key=fact.relation.key)


def _led_in(rng: random.Random, phrases: Phrases, question: str, **said: str) -> str:
    """Draw what stands in front of a question, and fill in what it says."""
    lead_in = rng.choice(phrases.lead_ins)
    return lead_in + (_within(question) if lead_in.endswith(", ") else question).format(**said)
