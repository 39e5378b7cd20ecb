"""The tiny dialect, its conversations and its tokenizer."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import pytest

from ocrmem.synthetic.tiny import (
    ASK,
    CONTENT_WORDS,
    FILLERS,
    HELD_OUT,
    KEYS,
    LABELS,
    VALUES,
    draw_history,
    tiny_conversations,
    with_other_value,
)
from ocrmem.synthetic.tokenizer import VOCABULARY, build_tiny_tokenizer


def content(conversation: dict[str, Any]) -> list[list[str]]:
    return [message["content"].split() for message in conversation["messages"]]


def stated(conversation: dict[str, Any]) -> set[tuple[str, str]]:
    return {pair for words in content(conversation) for pair in pairwise(words) if pair[0] in KEYS}


def answers(conversation: dict[str, Any]) -> list[str]:
    return [
        message["content"]
        for message in conversation["messages"]
        if message["role"] == "assistant" and message.get("weight", 1)
    ]


def test_words_have_three_letters_and_one_meaning() -> None:
    words = [*KEYS, *VALUES, *FILLERS, *LABELS.values(), ASK]
    assert len(set(words)) == len(words)
    assert {len(word) for word in words} == {3}
    assert len(set(VOCABULARY)) == len(VOCABULARY)


def test_held_out_pairs_are_a_fixed_quarter() -> None:
    assert len(HELD_OUT) == len(KEYS) * len(VALUES) // 4
    assert {key for key, _ in HELD_OUT} == set(KEYS)
    assert ("ana", "jam") in HELD_OUT


def test_training_never_states_a_held_out_pair_and_evaluation_asks_for_nothing_else() -> None:
    for conversation in tiny_conversations(400, 0):
        assert not stated(conversation) & HELD_OUT
    for conversation in tiny_conversations(100, 0, held_out=True):
        assert all(tuple(answer.split()) in HELD_OUT for answer in answers(conversation))


@pytest.mark.parametrize("notes", [False, True])
def test_histories_state_only_the_wanted_kind(notes: bool) -> None:
    source = random.Random(3)
    for held_out in (False, True):
        for _ in range(200):
            history = draw_history(source, 6, 5, notes=notes, held_out=held_out)
            assert {pair in HELD_OUT for pair in history.facts} == {held_out}


@pytest.mark.parametrize("held_out", [False, True])
def test_shape(held_out: bool) -> None:
    ids = set()
    for conversation in tiny_conversations(200, 5, held_out=held_out):
        ids.add(conversation["id"])
        messages = conversation["messages"]
        assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert 4 <= len(messages) <= 10
        assert all(1 <= len(words) <= CONTENT_WORDS for words in content(conversation))
        assert 1 <= len(answers(conversation)) <= 2
        questions = [m["content"].split() for m in messages if m["content"].startswith(ASK)]
        for question, answer in zip(questions, answers(conversation), strict=True):
            assert question[1] == answer.split()[0]
    assert len(ids) == 200


def test_an_answer_stands_once_in_the_history() -> None:
    for conversation in tiny_conversations(200, 1):
        for answer in answers(conversation):
            pairs = [pair for words in content(conversation) for pair in pairwise(words)]
            assert pairs.count(tuple(answer.split())) == 2  # in the history and as the answer


def test_rows_and_columns_vary() -> None:
    places = set()
    for conversation in tiny_conversations(200, 0, held_out=True):
        key = answers(conversation)[0].split()[0]
        row = next(i for i, words in enumerate(content(conversation)) if key in words)
        places.add((row, content(conversation)[row].index(key)))
    assert {row for row, _ in places} == set(range(6))
    assert {column for _, column in places} == set(range(CONTENT_WORDS - 1))


def test_same_seed_same_conversations() -> None:
    assert list(tiny_conversations(20, 7)) == list(tiny_conversations(20, 7))
    assert list(tiny_conversations(20, 7)) != list(tiny_conversations(20, 8))
    assert list(tiny_conversations(5, 7)) == list(tiny_conversations(20, 7))[:5]


def test_another_value_changes_one_pair_and_nothing_else() -> None:
    plain = list(tiny_conversations(100, 0, held_out=True))
    changed = list(tiny_conversations(100, 0, held_out=True, counterfactual=True))
    for before, after in zip(plain, changed, strict=True):
        assert after == with_other_value(before, 0)
        assert after["id"] == f"{before['id']}-cf"
        (answer,) = answers(after)
        key, value = answer.split()
        old_key, old_value = answers(before)[-1].split()
        assert key == old_key
        assert value != old_value
        assert (key, value) in HELD_OUT
        differences = [
            (old, new)
            for a, b in zip(content(before), content(after), strict=True)
            for old, new in zip(a, b, strict=True)
            if old != new
        ]
        assert differences == [(old_value, value)] * 2


def test_the_tokenizer_has_one_token_a_word_and_keeps_newlines() -> None:
    tokenizer = build_tiny_tokenizer()
    ids = tokenizer("  the ana\t tea\nbot zebra")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["the", "ana", "tea", "\n", "bot", "<unk>"]
    assert tokenizer.decode(tokenizer("ana tea<|im_end|>")["input_ids"], skip_special_tokens=True) == "ana tea"
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"


def test_the_chat_template_is_chatml() -> None:
    messages = [{"role": "user", "content": "ask ana"}]
    text = build_tiny_tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nask ana<|im_end|>\n<|im_start|>assistant\n"


def test_every_word_of_every_conversation_is_known() -> None:
    words = {word for c in tiny_conversations(300, 2) for line in content(c) for word in line}
    assert words <= set(VOCABULARY)


def test_conversations_are_small() -> None:
    size = sum(len(json.dumps(c, separators=(",", ":"))) for c in tiny_conversations(2000, 0))
    assert size < 1_000_000


def test_links_name_the_key_behind_a_word_that_stands_once() -> None:
    source = random.Random(0)
    seen = 0
    for _ in range(100):
        history = draw_history(source, 4, 4, notes=True)
        flat = [word for line in history.lines for word in line]
        for word, key in history.links:
            assert flat.count(word) == 1
            assert flat[flat.index(word) + 1] == key
        asked = history.asked(source, 4)
        said = [word for pair in asked for word in pair]
        assert len(said) == len(set(said))
        assert set(asked) <= {*history.facts, *history.links}
        seen += len(history.links)
    assert seen > 50
