"""Recall conversations: the answer is in the history or nowhere, and the same everywhere."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from ocrmem.config import DataSection, RunConfig
from ocrmem.conversations import read_conversations, split_turns
from ocrmem.errors import ConfigError
from ocrmem.synthetic.chat import chat_conversations
from ocrmem.synthetic.phrases import LanguageName, load_language
from ocrmem.synthetic.synth import synth

LANGUAGES: tuple[LanguageName, ...] = ("en", "zh")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("held_out", [False, True])
def test_the_answer_is_said_once_before_and_never_in_the_question(language: LanguageName, held_out: bool) -> None:
    turns, facts = 16, 5
    for conversation in chat_conversations(60, 1, language, turns, facts, held_out=held_out):
        messages, answer = conversation["messages"], conversation["answer"]
        assert [m["role"] for m in messages] == ["system", *["user", "assistant"] * turns]
        assert messages[-1]["content"] == answer
        holding = [n for n, message in enumerate(messages[:-1]) if answer in message["content"]]
        assert len(holding) == 1
        assert messages[holding[0]]["role"] == "user"
        assert holding[0] <= turns  # the first half: each turn is two messages
        assert messages[holding[0]]["content"].count(answer) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_only_the_answer_is_a_sample_and_its_history_states_it(language: LanguageName, tmp_path: Path) -> None:
    lines = (json.dumps(conversation) for conversation in chat_conversations(8, 0, language))
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    for conversation in read_conversations(RunConfig(data=DataSection(path=str(tmp_path)))):
        (sample,) = split_turns(conversation, 1)
        assert any(sample.answer in message.content for message in sample.history)
        assert not any(sample.answer in message.content for message in sample.prompt)
        assert [message.role for message in sample.prompt] == ["system", "user"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_counterfactuals_differ_in_the_asked_value_only(language: LanguageName) -> None:
    plain = chat_conversations(40, 5, language, held_out=True)
    changed = chat_conversations(40, 5, language, held_out=True, counterfactual=True)
    for one, other in zip(plain, changed, strict=True):
        assert other["id"] == f"{one['id']}-changed"
        assert one["answer"] != other["answer"]
        assert one["asked"] == other["asked"]
        differing = [
            (a["content"], b["content"]) for a, b in zip(one["messages"], other["messages"], strict=True) if a != b
        ]
        assert len(differing) == 2
        for before, after in differing:
            assert after == before.replace(one["answer"], other["answer"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_facts_of_held_out_conversations_are_never_in_training(language: LanguageName) -> None:
    def asked(**kind: bool) -> set[tuple[str, str]]:
        made = chain.from_iterable(chat_conversations(150, seed, language, 8, 4, **kind) for seed in range(3))
        return {(conversation["asked"], conversation["answer"]) for conversation in made}

    held_out = asked(held_out=True) | asked(held_out=True, counterfactual=True)
    assert not held_out & asked()
    assert len({kind for kind, _ in held_out}) == len(load_language(language).facts)


@pytest.mark.parametrize("language", LANGUAGES)
def test_conversations_vary(language: LanguageName) -> None:
    made = list(chat_conversations(50, 2, language))
    texts = [message["content"] for c in made for message in c["messages"] if message["role"] == "user"]
    assert len(set(texts)) > 0.4 * len(texts)
    for conversation in made:
        said = [message["content"] for message in conversation["messages"]]
        assert len(set(said)) > 0.9 * len(said)
    assert len({c["id"] for c in made}) == 50
    assert len({json.dumps(c["messages"]) for c in chain(made, chat_conversations(50, 3, language))}) == 100


@pytest.mark.parametrize("language", LANGUAGES)
def test_phrases_have_the_places_that_are_filled_and_no_value_by_chance(language: LanguageName) -> None:
    phrases = load_language(language)
    for kind in phrases.facts:
        assert all(text.count("{value}") == 1 for text in kind.statements)
        assert len(set(kind.values)) == len(kind.values)
        fixed = (*kind.replies, *kind.questions, phrases.system)
        assert not any(value in text for value in kind.values for text in fixed)
    every = {slot: words[0] for slot, words in phrases.slots.items()}
    for said, reply in phrases.talk:
        assert "{" not in said.format(**every) + reply.format(**every)


@pytest.mark.parametrize(("turns", "facts"), [(5, 5), (5, 0), (1, 1), (90, 40)])
def test_numbers_that_do_not_go_together_are_told(turns: int, facts: int) -> None:
    with pytest.raises(ConfigError, match="do not fit into"):
        next(chat_conversations(1, 0, "en", turns, facts))


def test_the_shortest_conversation() -> None:
    (conversation,) = chat_conversations(1, 0, "en", 2, 1)
    assert len(conversation["messages"]) == 5


def digest(made: Any) -> str:
    return hashlib.sha256(json.dumps(list(made)).encode()).hexdigest()


def test_the_same_seed_gives_the_same_conversations_in_another_process() -> None:
    code = (
        "import hashlib, json\n"
        "from ocrmem.synthetic.chat import chat_conversations as c\n"
        "made = [*c(5, 7, 'en'), *c(5, 7, 'zh', held_out=True)]\n"
        "print(hashlib.sha256(json.dumps(made).encode()).hexdigest())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert printed == {digest([*chat_conversations(5, 7, "en"), *chat_conversations(5, 7, "zh", held_out=True)])}


@pytest.mark.parametrize("style", ["tiny", "en", "zh", "mixed"])
def test_synth_writes_three_files_that_read_well_and_the_same_again(tmp_path: Path, style: Any) -> None:
    result = synth(tmp_path / "a", style=style, count=11, eval_count=4, seed=3)
    synth(tmp_path / "b", style=style, count=11, eval_count=4, seed=3)
    synth(tmp_path / "c", style=style, count=11, eval_count=4, seed=4)
    for name in ("train.jsonl", "eval.jsonl", "counterfactual.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes() != (tmp_path / "c" / name).read_bytes()
    read = read_conversations(RunConfig(data=DataSection(path=str(tmp_path / "a"))))
    splits = [conversation.split for conversation in read]
    assert {split: splits.count(split) for split in set(splits)} == result["counts"]
    assert result["counts"] == {"train": 11, "eval": 4, "counterfactual": 4}
    assert len(result["summary"]) == 3


def test_synth_tells_a_folder_that_cannot_be_written_and_an_unknown_style(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        synth(tmp_path / "file", style="en", count=1, eval_count=1)
    with pytest.raises(ConfigError, match="Use tiny, en, en-plain, zh or mixed"):
        synth(tmp_path, style="latin")  # type: ignore[arg-type]
