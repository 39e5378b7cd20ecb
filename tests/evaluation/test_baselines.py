"""What each variant puts into the sequence: a baseline that is unfair or leaks makes a figure worthless."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ocrmem.conversations import Message
from ocrmem.dataset.schema import Sample
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.errors import DataError
from ocrmem.evaluation.baselines import CaseMaker, embed, of_other_conversations, pool, scrambled, with_random_answer
from ocrmem.synthetic.tokenizer import build_tiny_tokenizer

LONGEST = 96
VALUES = ("tea", "fig", "rye", "ham", "egg", "nut")


@pytest.fixture(scope="module")
def maker() -> CaseMaker:
    return CaseMaker(SequenceBuilder(build_tiny_tokenizer(), LONGEST), 400)


def sample(conversation: str = "a", turn: int = 0, *, turns: int = 6, memory: int = 20) -> Sample:
    history = []
    for index in range(turns):
        history.append(Message("user", f"ana: {VALUES[index % 6]} the and was"))
        history.append(Message("assistant", "not but hot"))
    return Sample(
        id=f"{conversation}#{turn}",
        conversation_id=conversation,
        split="eval",
        turn=turn,
        history=tuple(history),
        prompt=(Message("user", "ana:"),),
        answer="tea",
        history_tokens=0,
        pages=("p",),
        memory_tokens=memory,
        sequence_tokens=0,
        answer_tokens=2,
        dropped_tokens=0,
        dropped_pages=0,
    )


def text_of(maker: CaseMaker, ids: list[int]) -> str:
    return str(maker.builder.tokenizer.decode(ids))


@pytest.mark.parametrize("memory", [2, 7, 20, 60])
def test_no_text_baseline_is_longer_than_memory(maker: CaseMaker, memory: int) -> None:
    given_sample = sample(memory=memory)
    with_memory = maker.with_memory(given_sample, torch.zeros(memory, 4))
    embeddings = nn.Embedding(400, 8)
    for case in (
        maker.truncated(given_sample),
        maker.mean_pooled(given_sample, embeddings),
        maker.without_memory(given_sample),
    ):
        assert len(case.supervised.input_ids) <= len(with_memory.supervised.input_ids)
        assert len(case.question.input_ids) <= len(with_memory.question.input_ids)


def test_truncated_text_uses_the_room_it_has_and_keeps_the_end(maker: CaseMaker) -> None:
    given_sample = sample(memory=40)
    room = len(maker.with_memory(given_sample, torch.zeros(40, 4)).question.input_ids)
    case = maker.truncated(given_sample)
    # A turn takes some tokens of the template: less than one turn's worth may stay unused.
    assert room - len(case.question.input_ids) <= 4
    text = text_of(maker, case.question.input_ids)
    assert "nut" in text
    assert "fig" not in text
    assert case.supervised.input_ids[: len(case.question.input_ids)] == case.question.input_ids


def test_full_text_goes_beyond_the_run_s_length(maker: CaseMaker) -> None:
    case = maker.full_text(sample(turns=10))
    assert len(case.question.input_ids) > LONGEST
    assert case.question.dropped_tokens == 0


def test_no_memory_shows_nothing_of_the_history(maker: CaseMaker) -> None:
    case = maker.without_memory(sample())
    assert "tea" not in text_of(maker, case.question.input_ids)
    assert case.question.memory_tokens == 0
    assert case.features is None


def test_the_answer_is_never_in_the_question(maker: CaseMaker) -> None:
    given_sample = replace(sample(), answer="yak")
    for case in (
        maker.truncated(given_sample),
        maker.full_text(given_sample),
        maker.without_memory(given_sample),
    ):
        assert "yak" not in text_of(maker, case.question.input_ids)
        assert "yak" in text_of(maker, case.supervised.input_ids)


@pytest.mark.parametrize(("length", "used"), [(10, 10), (20, 20), (200, 83)])
def test_another_conversation_s_memory_keeps_its_length_unless_there_is_no_room(
    maker: CaseMaker, length: int, used: int
) -> None:
    features = torch.arange(float(length)).unsqueeze(1)
    given_sample = sample()
    case = maker.with_other_memory(given_sample, features)
    assert case.question.dropped_tokens == 0
    assert case.question.memory_tokens == len(case.features)
    assert len(case.supervised.input_ids) <= LONGEST
    if length < LONGEST:
        assert len(case.features) == used
    else:
        assert len(case.supervised.input_ids) == LONGEST
        assert case.features[-1] == length - 1  # the oldest were left out


def test_pooled_slots_average_the_history_s_tokens(maker: CaseMaker) -> None:
    embeddings = nn.Embedding(400, 8)
    given_sample = sample(memory=1)
    case = maker.mean_pooled(given_sample, embeddings)
    ids = [token for message in given_sample.history for token in maker.builder.encode_content(message.content)]
    assert torch.allclose(case.embeddings, embed(embeddings, ids).mean(0, keepdim=True), atol=1e-6)
    assert case.question.memory_tokens == 1
    assert case.features is None


@pytest.mark.parametrize(("tokens", "slots"), [(6, 6), (6, 3), (7, 3), (2, 5)])
def test_pooling_gives_every_slot_a_mean(tokens: int, slots: int) -> None:
    values = torch.arange(float(tokens)).unsqueeze(1).expand(-1, 3)
    pooled = pool(values, slots)
    assert pooled.shape == (slots, 3)
    assert pooled[0, 0] < pooled[-1, 0]
    if tokens % slots == 0:
        assert torch.allclose(pooled, values.reshape(slots, -1, 3).mean(1))


@given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=24))
def test_every_sample_gets_another_conversation_s_memory_once(names: list[str]) -> None:
    samples = [sample(name, turn, turns=1) for turn, name in enumerate(names)]
    if 2 * max(names.count(name) for name in names) > len(names):
        with pytest.raises(DataError, match="Hold out more conversations"):
            of_other_conversations(samples)
        return
    partner = of_other_conversations(samples)
    assert sorted(partner) == list(range(len(samples)))
    assert all(names[i] != names[j] for i, j in enumerate(partner))
    assert of_other_conversations(samples) == partner


def test_scrambling_keeps_every_word_and_the_answer_s_messages() -> None:
    given_sample = replace(
        sample(),
        history=(
            Message("user", "one two  three\nfour five"),
            Message("assistant", "drink some Tea  now please then"),
            Message("user", "six"),
        ),
    )
    probe = scrambled(given_sample, 0)
    assert probe is not None
    assert probe.history[1:] == given_sample.history[1:]
    before, after = given_sample.history[0].content, probe.history[0].content
    assert before != after
    assert sorted(before.split()) == sorted(after.split())
    assert after.count("\n") == 1
    assert scrambled(given_sample, 0) == probe


@pytest.mark.parametrize(
    "history",
    [(Message("user", "no such word here"),), (Message("user", "tea"), Message("assistant", "tea"))],
)
def test_nothing_is_scrambled_where_it_would_show_nothing(history: tuple[Message, ...]) -> None:
    assert scrambled(replace(sample(), history=history), 0) is None


@pytest.mark.parametrize(
    ("history", "answer", "written"),
    [
        ("Ana drinks tea. TEA!", "tea", "Ana drinks {}. {}!"),
        ("by steam; green\n  tea", "Green tea", "by steam; {}"),
        ("安娜喝茶。", "茶", "安娜喝{}。"),
    ],
)
def test_random_letters_stand_for_the_answer_on_the_pages_and_as_what_is_right(
    history: str, answer: str, written: str
) -> None:
    given = replace(sample(), history=(Message("user", history), Message("assistant", "Noted.")), answer=answer)
    probe = with_random_answer(given, 0)
    assert probe is not None
    assert probe == with_random_answer(given, 0)
    assert probe.answer.isalpha()
    assert len(probe.answer) == 6
    assert [message.content for message in probe.history] == [written.replace("{}", probe.answer), "Noted."]
    assert probe.prompt == given.prompt
    other = with_random_answer(given, 1)
    assert other is not None
    assert other.answer != probe.answer


@pytest.mark.parametrize(
    ("history", "prompt", "answer"),
    [("only steam", "which?", "tea"), ("tea", "which tea?", "tea"), ("tea", "which?", " ")],
)
def test_no_random_letters_where_they_would_show_nothing(history: str, prompt: str, answer: str) -> None:
    given = replace(sample(), history=(Message("user", history),), prompt=(Message("user", prompt),), answer=answer)
    assert with_random_answer(given, 0) is None
