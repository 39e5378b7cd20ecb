"""Notes in English: what is asked is stated once, held-out facts and phrasings stay out of training."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ocrmem.config import DataSection, RunConfig
from ocrmem.conversations import read_conversations, split_turns
from ocrmem.errors import ConfigError
from ocrmem.synthetic.notes import QUESTIONS, REPHRASED, load_phrases, note_conversations
from ocrmem.synthetic.synth import synth

PHRASES = load_phrases()


def notes_of(conversation: dict[str, Any]) -> str:
    """The text before the questions."""
    messages = conversation["messages"]
    return "\n".join(m["content"] for m in messages[: len(messages) - 2 * QUESTIONS] if m["role"] == "user")


def asked(conversation: dict[str, Any]) -> list[tuple[str, str]]:
    """Questions and answers."""
    contents = [message["content"] for message in conversation["messages"][-2 * QUESTIONS :]]
    return list(zip(contents[::2], contents[1::2], strict=True))


def says(text: str, value: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE))


@cache
def question_patterns() -> list[tuple[str, bool, re.Pattern[str]]]:
    """Kind of fact, whether training never asks so, and a pattern that finds the subject."""
    found = []
    for relation in PHRASES.relations:
        keyed = PHRASES.own_asking if relation.of == "self" else PHRASES.asking
        for template in (*relation.questions, *keyed):
            kept_back = template == relation.questions[-1]
            pattern = re.escape(template.replace("{key}", relation.key))
            subject = pattern.replace(re.escape("{s}"), r"([\w'-]+(?: [\w'-]+){0,5})")
            subject += "" if relation.of != "self" else "()"
            found.append((relation.name, kept_back, re.compile(f"(?:^|[,:?] ){subject}$", re.IGNORECASE)))
    return found


def kinds_asked(question: str) -> dict[str, tuple[str, bool]]:
    """The kinds of facts that a question asks for, each with its subject and whether training never asks so."""
    matches = ((kind, kept, pattern.search(question)) for kind, kept, pattern in question_patterns())
    return {kind: (match[1], kept) for kind, kept, match in matches if match}


@pytest.mark.parametrize("held_out", [False, True])
def test_an_answer_stands_in_the_notes_once_and_in_no_question(held_out: bool) -> None:
    for conversation in note_conversations(80, 1, held_out=held_out):
        notes, pairs = notes_of(conversation), asked(conversation)
        assert len({answer for _, answer in pairs}) == len(pairs) == QUESTIONS
        for question, answer in pairs:
            assert says(notes, answer) == 1
            assert not says(question, answer)
            assert len(answer.split()) <= 6


def test_questions_are_the_samples_and_the_notes_are_their_history(tmp_path: Path) -> None:
    lines = [json.dumps(conversation) for conversation in note_conversations(10, 0)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    for conversation in read_conversations(RunConfig(data=DataSection(path=str(tmp_path)))):
        samples = split_turns(conversation, 1)
        assert len(samples) == QUESTIONS
        for sample in samples:
            assert any(says(message.content, sample.answer) for message in sample.history)
            assert [message.role for message in sample.prompt] == ["system", "user"]


def facts_asked(conversations: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Every asked (kind, subject, value), found again through the questions' templates."""
    return {
        (kind, subject, answer)
        for conversation in conversations
        for question, answer in asked(conversation)
        for kind, (subject, _) in kinds_asked(question).items()
    }


def test_no_fact_of_held_out_conversations_is_stated_in_training() -> None:
    train = list(note_conversations(400, 0))
    held_out = [c for kind in (False, True) for c in note_conversations(100, 0, held_out=True, counterfactual=kind)]
    facts = facts_asked(held_out)
    assert len(facts) > 400
    assert not facts & facts_asked(train)
    assert len({kind for kind, _, _ in facts}) > 50


def test_half_of_the_held_out_conversations_ask_as_training_never_does() -> None:
    def kept_back(conversations: list[dict[str, Any]]) -> list[bool]:
        found = [kinds_asked(question) for conversation in conversations for question, _ in asked(conversation)]
        return [any(kept for _, kept in kinds.values()) for kinds in found]

    held_out = list(note_conversations(40, 0, held_out=True))
    rephrased = [conversation for conversation in held_out if conversation["id"].endswith(REPHRASED)]
    familiar = [conversation for conversation in held_out if conversation not in rephrased]
    assert len(rephrased) == len(familiar) == 20
    assert all(kept_back(rephrased))
    assert not any(kept_back(familiar))
    assert not any(kept_back(list(note_conversations(100, 0))))


def test_counterfactuals_differ_in_the_last_asked_value_only() -> None:
    plain = note_conversations(60, 5, held_out=True)
    changed = note_conversations(60, 5, held_out=True, counterfactual=True)
    for one, other in zip(plain, changed, strict=True):
        assert other["id"] == f"{one['id']}-changed"
        (_, before), (_, after) = asked(one)[-1], asked(other)[-1]
        assert before != after
        both = zip(one["messages"], other["messages"], strict=True)
        (note, new_note), (answer, new_answer) = [(a, b) for a, b in both if a["content"] != b["content"]]
        assert (answer["content"], new_answer["content"]) == (before, after)
        assert not says(note["content"], after)
        taken_out = re.compile(rf"(\ban? )?({re.escape(before)}|{re.escape(after)})", re.IGNORECASE)
        assert taken_out.sub("", note["content"]).lower() == taken_out.sub("", new_note["content"]).lower()
        weights = [message.get("weight", 1) for message in other["messages"] if message["role"] == "assistant"]
        assert weights == [0] * (len(weights) - 1) + [1]


def test_a_name_alone_gives_no_answer_away() -> None:
    """In most conversations somebody is spoken of in several sentences."""
    conversations = list(note_conversations(100, 0))
    someone = r"[Mm]y [a-z]+|[A-Z][\w'-]+(?= [A-Z][\w'-]+)"
    names = [Counter(re.findall(someone, notes_of(conversation))) for conversation in conversations]
    assert sum(max(counts.values(), default=0) > 1 for counts in names) > 80


def test_facts_and_words_set_the_size() -> None:
    def words(**size: int) -> float:
        made = list(note_conversations(40, 0, **size))
        return sum(len(notes_of(conversation).split()) for conversation in made) / len(made)

    assert 90 < words(words=120) < 150
    assert words(words=400) > 2.5 * words(words=120)
    assert words(facts=20, words=1) > 2 * words(facts=8, words=1)


def test_phrases_have_their_places_and_many_kinds_many_ways() -> None:
    assert len(PHRASES.relations) >= 40
    assert len({relation.name for relation in PHRASES.relations}) == len(PHRASES.relations)
    for relation in PHRASES.relations:
        assert len(relation.statements) >= 3
        assert len(set(relation.questions)) >= 4
        subjects = int(relation.of != "self")
        assert all((text.count("{s}"), text.count("{v}")) == (subjects, 1) for text in relation.statements)
        assert all(text.count("{s}") == subjects and "{v}" not in text for text in relation.questions)
        assert relation.of in {"person", "self", *PHRASES.words}
    kept_back = {relation.questions[-1] for relation in PHRASES.relations}
    assert not kept_back & {question for relation in PHRASES.relations for question in relation.questions[:-1]}
    for name, words in PHRASES.words.items():
        listed = words.split(", ")
        assert len(set(listed)) == len(listed), name


def test_notes_are_lists_and_sentences_about_the_writer_and_others() -> None:
    notes = "\n".join(map(notes_of, note_conversations(60, 0)))
    own = [relation.key for relation in PHRASES.relations if relation.of == "self"]
    for form in (
        r"^- ",
        r"^• ",
        r"[.!] \w",
        rf"^(?:. )?(?:my )?(?:{'|'.join(own)})(?:: | = | - )",
        r"my sister|my mother",
    ):
        assert len(re.findall(form, notes, re.IGNORECASE | re.MULTILINE)) >= 5, form
    assert not re.findall(r"\{|\}|#|@", notes)


@pytest.mark.parametrize(("facts", "words"), [(0, 10), (41, 10), (5, 0)])
def test_sizes_that_make_no_notes_are_told(facts: int, words: int) -> None:
    with pytest.raises(ConfigError, match="cannot be told apart"):
        next(note_conversations(1, 0, facts, words))


def test_the_same_seed_gives_the_same_notes_in_another_process() -> None:
    code = (
        "import json\n"
        "from ocrmem.synthetic.notes import note_conversations as n\n"
        "print(json.dumps([*n(5, 7), *n(5, 7, held_out=True)]))"
    )
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == [*note_conversations(5, 7), *note_conversations(5, 7, held_out=True)]
    assert list(note_conversations(5, 8)) != list(note_conversations(5, 7))


def test_synth_passes_the_sizes_on(tmp_path: Path) -> None:
    synth(tmp_path, style="en", count=2, eval_count=1, facts=3, words=30)
    made = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [conversation["messages"] for conversation in made] == [
        conversation["messages"] for conversation in note_conversations(2, 0, 3, 30)
    ]


def test_plain_notes_are_one_message_and_ask_for_what_it_says() -> None:
    train = list(note_conversations(20, 1, 5, 25, plain=True))
    assert any(conversation["messages"][-1]["content"].startswith("1. ") for conversation in train)
    for conversation in (*train, *note_conversations(10, 1, 5, 25, plain=True, held_out=True)):
        system, notes, reply, question, answer = conversation["messages"]
        assert [message["role"] for message in (system, notes, reply, question, answer)] == [
            "system", "user", "assistant", "user", "assistant",
        ]  # fmt: skip
        assert reply["weight"] == 0
        asked, given = question["content"].splitlines(), answer["content"].splitlines()
        assert len(asked) == len(given)
        assert all(value.split(". ", 1)[-1] in notes["content"] for value in given)


def test_plain_notes_in_training_may_be_asked_for_all_that_they_state() -> None:
    messages = [one["messages"] for one in note_conversations(60, 1, 7, 45, plain=True)]
    questions = [[line.split(". ", 1)[-1] for line in told[3]["content"].splitlines()] for told in messages]
    assert max(map(len, questions)) == 7
    assert all(len(set(asked)) == len(asked) for asked in questions)


def test_plain_notes_in_training_ask_for_values_and_for_people_alike() -> None:
    """A name that is never an answer is not read, and then a value is that of anybody."""
    people = set(PHRASES.plain().words["first"].split(", "))
    of_people = values = 0
    for one in note_conversations(200, 1, 5, 25, plain=True):
        _, note, _, question, answer = one["messages"]
        pairs = zip(question["content"].splitlines(), answer["content"].splitlines(), strict=True)
        for asked, given in ((text.split(". ", 1)[-1] for text in pair) for pair in pairs):
            if re.search(r"\bwhom?\b|\bwhose\b", asked, re.IGNORECASE) and given in people:
                of_people += 1
                assert given not in asked
                assert says(note["content"], given)
            else:
                values += 1
                assert says(note["content"], given) == 1
    assert 0.4 < of_people / (of_people + values) < 0.6


def test_plain_notes_in_training_mostly_ask_what_two_people_have() -> None:
    plain = PHRASES.plain()
    kinds = [plain.words[relation.value.strip("{}")].split(", ") for relation in plain.relations]
    single = shared = 0
    for one in note_conversations(200, 1, 5, 25, plain=True):
        _, note, _, question, answer = one["messages"]
        if "\n" in question["content"]:
            continue
        told = question["content"] + " " + answer["content"]
        kind = next(values for values in kinds if any(says(told, value) for value in values))
        single += 1
        shared += sum(says(note["content"], value) > 0 for value in kind) > 1
    assert shared / single > 0.65


def test_plain_notes_state_only_the_kinds_that_are_named(tmp_path: Path) -> None:
    synth(tmp_path, style="en-plain", count=30, eval_count=10, kinds=("food", "car"))
    plain = PHRASES.plain()
    values = {one.name: plain.words[one.value.strip("{}")].split(", ") for one in plain.relations}
    notes = [json.loads(line)["messages"][1]["content"] for line in (tmp_path / "train.jsonl").open(encoding="utf-8")]
    found = {name: sum(says(note, value) for note in notes for value in words) for name, words in values.items()}
    assert min(found["food"], found["car"]) > 30
    assert found["instrument"] + found["drink"] + found["home"] + found["book"] == 0


@pytest.mark.parametrize(
    ("style", "kinds", "message"),
    [
        ("en-plain", ("food", "shoe"), "--kinds: has shoe. Plain notes have home, job, "),
        ("en", ("food",), "--kinds: is for plain notes, and the style is en. Add --style en-plain"),
    ],
)
def test_kinds_that_notes_do_not_have_are_told_before_a_file_is_written(
    tmp_path: Path, style: Any, kinds: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        synth(tmp_path / "notes", style=style, kinds=kinds)
    assert not list(tmp_path.glob("**/*.jsonl"))


def test_plain_held_out_conversations_ask_one_question() -> None:
    held_out = note_conversations(20, 1, 5, 25, plain=True, held_out=True)
    assert all("\n" not in conversation["messages"][3]["content"] for conversation in held_out)
