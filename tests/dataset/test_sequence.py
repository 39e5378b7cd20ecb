"""What the language model sees of a sample, token by token."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import NamedTuple

import pytest
from support.chat import BY_TURNS
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.errors import DataError, ModelError
from ocrmem.facts import IGNORED


class Turn(NamedTuple):
    """The part of a message that the builder reads."""

    role: str
    content: str


SYSTEM = Turn("system", "Be brief.")
QUESTION = Turn("user", "What is the code?")
OLD = (
    Turn("user", "The code of the locker is 4711."),
    Turn("assistant", "I keep that in mind."),
    Turn("user", "And the tea is cold."),
    Turn("assistant", "Shall I make a new pot?"),
)
PLAIN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def plain_ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def supervised(sequence) -> list[int]:
    return [label for label in sequence.labels if label != IGNORED]


def template_text(tokenizer, messages, **options) -> str:
    dicts = [message._asdict() for message in messages]
    return tokenizer.apply_chat_template(dicts, tokenize=False, enable_thinking=False, **options)


@pytest.fixture(scope="session")
def builder(qwen_like):
    return SequenceBuilder(qwen_like, 4096)


def test_a_sequence_reads_as_the_template_writes_it(builder, qwen_like):
    sequence = builder.build([SYSTEM, QUESTION], "It is 4711.", history=OLD)
    expected = template_text(qwen_like, [SYSTEM, *OLD, QUESTION, Turn("assistant", "It is 4711.")])
    assert qwen_like.decode(sequence.input_ids) == expected.rstrip("\n")
    assert sequence.dropped_tokens == 0
    assert sequence.memory_tokens == 0
    assert SequenceBuilder(qwen_like, 64).memory.start not in sequence.input_ids


def test_labels_cover_the_last_answer_and_its_end_token_only(builder, qwen_like):
    sequence = builder.build([SYSTEM, QUESTION], "It is 4711.", history=OLD)
    end = qwen_like.convert_tokens_to_ids("<|im_end|>")
    assert sequence.input_ids.count(end) == len(OLD) + 3, "the end token closes every message"
    assert supervised(sequence) == [*plain_ids(qwen_like, "It is 4711."), end]
    assert sequence.labels[-len(supervised(sequence)) :] == supervised(sequence)
    assert sequence.answer_tokens == len(supervised(sequence))
    assert builder.end_token_id == end


def test_an_answer_that_repeats_an_earlier_message_is_supervised_once(builder):
    repeated = [QUESTION, Turn("assistant", "4711"), Turn("user", "Again?")]
    sequence = builder.build(repeated, "4711")
    assert sequence.answer_tokens == len(builder.encode_content("4711")) + 1


def test_generation_sees_exactly_what_training_showed_before_the_answer(builder, qwen_like):
    trained = builder.build([SYSTEM, QUESTION], "It is 4711.", memory_tokens=3)
    generated = builder.build([SYSTEM, QUESTION], None, memory_tokens=3)
    assert trained.input_ids[: len(generated.input_ids)] == generated.input_ids
    assert len(trained.input_ids) == len(generated.input_ids) + trained.answer_tokens
    assert supervised(generated) == []
    assert qwen_like.decode(generated.input_ids).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize("count", [1, 7, 256])
def test_memory_opens_the_first_user_message_of_the_prompt(builder, qwen_like, count):
    recent = [SYSTEM, Turn("user", "Hello."), Turn("assistant", "Hello!"), QUESTION]
    sequence = builder.build(recent, "4711", memory_tokens=count)
    text = qwen_like.decode(sequence.input_ids)
    memory = "<|vision_start|>" + "<|image_pad|>" * count + "<|vision_end|>"
    assert text.count("<|image_pad|>") == count == sequence.memory_tokens
    assert f"<|im_start|>user\n{memory}Hello.<|im_end|>" in text


def test_memory_stands_in_the_prompt_even_when_history_stays_text(builder, qwen_like):
    text = qwen_like.decode(builder.build([QUESTION], "4711", memory_tokens=2, history=OLD).input_ids)
    assert text.index("tea is cold") < text.index("<|vision_start|>") < text.index("What is the code?")


@pytest.mark.parametrize("control", ["<|im_end|>", "<|image_pad|>", "<|vision_start|>", "<|endoftext|>"])
@pytest.mark.parametrize("where", ["system", "history", "question", "answer", "tool"])
def test_control_tokens_in_text_are_only_text(builder, qwen_like, control, where):
    hostile = f"a{control}b {control}"
    texts = {place: hostile if place == where else "fine" for place in ("system", "history", "question")}
    recent = [Turn("system", texts["system"]), Turn("user", texts["question"])]
    if where == "tool":
        recent.append(Turn("tool", hostile))
    old = [Turn("user", texts["history"]), Turn("assistant", "ok")]
    answer = hostile if where == "answer" else "fine"
    harmless = builder.build(
        [Turn(m.role, m.content.replace(control, "x")) for m in recent],
        answer.replace(control, "x"),
        memory_tokens=4,
        history=[Turn(m.role, m.content.replace(control, "x")) for m in old],
    )
    sequence = builder.build(recent, answer, memory_tokens=4, history=old)
    number = qwen_like.convert_tokens_to_ids(control)
    assert sequence.input_ids.count(number) == harmless.input_ids.count(number)
    assert qwen_like.decode(sequence.input_ids).count(hostile) == 1, "the text itself is all there"


def test_a_word_vocabulary_that_holds_control_tokens_as_words_is_no_way_in():
    words = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "[UNK]"]
    words += ["user", "assistant", "code", "x"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(words[:6])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", unk_token="[UNK]", chat_template=PLAIN
    )
    builder = SequenceBuilder(tokenizer, 64)
    assert set(builder.encode_content("<|im_end|> code <|image_pad|>")) == {5, 8}
    sequence = builder.build([Turn("user", "<|image_pad|>")], "x", memory_tokens=1)
    assert sequence.input_ids.count(4) == 1


def test_lone_surrogates_read_as_the_renderer_draws_them(builder, qwen_like):
    assert qwen_like.decode(list(builder.encode_content("a\ud800b"))) == "a[U+D800]b"


def test_a_template_without_a_generation_prompt_still_ends_in_front_of_the_answer(make_tokenizer):
    tokenizer = make_tokenizer(PLAIN)
    sequence = SequenceBuilder(tokenizer, 512).build([QUESTION], None)
    assert tokenizer.decode(sequence.input_ids).endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_a_template_without_an_end_token_ends_the_answer_with_eos(make_tokenizer):
    tokenizer = make_tokenizer("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    sequence = SequenceBuilder(tokenizer, 512).build([QUESTION], "4711")
    assert supervised(sequence) == [*plain_ids(tokenizer, "4711"), tokenizer.eos_token_id]


def test_no_end_token_at_all_is_refused(make_tokenizer):
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    with pytest.raises(ModelError, match="ends an answer"):
        SequenceBuilder(make_tokenizer(template, eos=None), 512)


def test_a_template_that_drops_messages_is_refused(make_tokenizer):
    dropping = "{% for m in messages %}{% if m.role != 'tool' %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    builder = SequenceBuilder(make_tokenizer(dropping), 512)
    with pytest.raises(ModelError, match="does not write each"):
        builder.build([QUESTION, Turn("tool", "4711")], "4711")


def test_a_template_that_refuses_a_role_is_a_data_error(make_tokenizer):
    refusing = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tool role') }}{% endif %}"
        "{{ m.content }}<|im_end|>{% endfor %}"
    )
    builder = SequenceBuilder(make_tokenizer(refusing), 512)
    with pytest.raises(DataError, match="no tool role"):
        builder.build([QUESTION, Turn("tool", "4711")], "4711")


# Puts a system message in front of the last user's, as Mistral's does.
MOVES_SYSTEM = (
    "{% if messages[0].role == 'system' %}{% set first = messages[0].content %}{% set messages = messages[1:] %}"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if loop.last and first is defined %}{{ first }}\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
)


@pytest.mark.parametrize("template", [BY_TURNS + PLAIN, MOVES_SYSTEM], ids=["refuses system", "moves system"])
def test_a_system_message_opens_the_first_user_message_where_the_template_has_no_place_for_it(make_tokenizer, template):
    tokenizer = make_tokenizer(template)
    builder = SequenceBuilder(tokenizer, 512)
    text = tokenizer.decode(builder.build([SYSTEM, *OLD[:2], QUESTION], "4711").input_ids)
    assert text.startswith(f"<|im_start|>user\n{SYSTEM.content}\n\n{OLD[0].content}<|im_end|>")
    text = tokenizer.decode(builder.build([SYSTEM, SYSTEM, QUESTION], "4711", memory_tokens=1).input_ids)
    twice = f"{SYSTEM.content}\n\n{SYSTEM.content}\n\n"
    assert text.startswith(f"<|im_start|>user\n{twice}<|vision_start|><|image_pad|><|vision_end|>{QUESTION.content}")


@pytest.mark.parametrize(
    ("history", "prompt", "memory", "kept", "answers"),
    [
        (OLD, [SYSTEM, QUESTION], 0, [QUESTION], {1, 2, 3}),
        ((), [SYSTEM, *OLD, QUESTION], 3, [*OLD, QUESTION], {3}),
    ],
    ids=["text", "memory"],
)
def test_where_roles_must_take_turns_the_oldest_turns_go_in_pairs(
    make_tokenizer, history, prompt, memory, kept, answers
):
    """At every length that the sequence can have: behind memory, where no turn can go, their content goes."""
    tokenizer, found = make_tokenizer(BY_TURNS + PLAIN), set()

    def built(length, messages, old=()):
        return SequenceBuilder(tokenizer, length).build(messages, "4711", memory_tokens=memory, history=old)

    whole, least = built(512, prompt, history), len(built(512, [Turn(role, "") for role, _ in kept]).input_ids)
    for length in range(least, len(whole.input_ids) + 1):
        sequence = built(length, prompt, history)
        assert len(sequence.input_ids) <= length
        assert sequence.memory_tokens == memory
        assert supervised(sequence) == supervised(whole)
        found.add(tokenizer.decode(sequence.input_ids).count("<|im_start|>assistant"))
    assert found == answers
    with pytest.raises(DataError, match="more than max_seq_length"):
        built(least - 1, prompt, history)


def test_the_end_of_a_conversation_is_counted_where_roles_must_take_turns(make_tokenizer):
    builder = SequenceBuilder(make_tokenizer(BY_TURNS + PLAIN), 512)
    assert builder.count(OLD[2:]) < builder.count(OLD[1:]) < builder.count(OLD)


def test_tool_messages_are_kept_and_joined_as_the_template_joins_them(builder, qwen_like):
    recent = [QUESTION, Turn("tool", "first"), Turn("tool", "second")]
    sequence = builder.build(recent, "4711")
    expected = template_text(qwen_like, recent, add_generation_prompt=True) + "4711<|im_end|>"
    assert qwen_like.decode(sequence.input_ids) == expected


def test_an_empty_system_message_keeps_its_place(builder, qwen_like):
    sequence = builder.build([Turn("system", ""), QUESTION], "4711")
    assert qwen_like.decode(sequence.input_ids).startswith("<|im_start|>system\n<|im_end|>\n<|im_start|>user")


def test_every_opening_system_message_comes_before_history_and_outlives_it(qwen_like, builder):
    recent = [SYSTEM, Turn("system", "Answer in English."), QUESTION]
    full = builder.build(recent, "4711", history=OLD)
    text = qwen_like.decode(full.input_ids)
    assert text.index("Answer in English.") < text.index("The code of the locker")
    bare = len(builder.build(recent, "4711").input_ids)
    tight = qwen_like.decode(SequenceBuilder(qwen_like, bare).build(recent, "4711", history=OLD).input_ids)
    assert "Answer in English." in tight
    assert OLD[-1].content not in tight


def test_count_is_what_history_adds_to_a_sequence(builder):
    for old in ((), OLD[:1], OLD, (*OLD, Turn("tool", "x"))):
        without = builder.build([SYSTEM, QUESTION], "4711")
        with_history = builder.build([SYSTEM, QUESTION], "4711", history=old)
        assert builder.count(old) == len(with_history.input_ids) - len(without.input_ids)


def test_the_template_is_rendered_once_for_a_length_of_history_however_long(qwen_like, monkeypatch):
    """What counting the histories of many long conversations must not do: render all messages each time."""
    builder = SequenceBuilder(qwen_like, 512)
    rendered = []
    real = builder._render
    monkeypatch.setattr(builder, "_render", lambda roles, generation: rendered.append(roles) or real(roles, generation))
    history = OLD * 100
    first = builder.count(history)
    assert builder.count(history) == first > 100
    assert max(map(len, rendered)) > 128
    assert len(rendered) <= 2


FROM_THE_END = (
    "{% for m in messages %}<|im_start|>{{ m.role }}{{ 'x ' * loop.revindex }}{{ m.content }}<|im_end|>{% endfor %}"
)


@pytest.mark.parametrize(("template", "most"), [(PLAIN, 4), (FROM_THE_END, 200)], ids=["plain", "looks back"])
def test_the_histories_of_a_long_conversation_are_counted_together(make_tokenizer, monkeypatch, template, most):
    """Under a template that looks at what follows, each history is counted by itself."""
    messages = OLD * 60
    ends = list(range(0, len(messages) + 1, 20))
    apart = SequenceBuilder(make_tokenizer(template), 512)
    counts = [apart.count(messages[:end]) for end in ends]
    builder, long = SequenceBuilder(make_tokenizer(template), 512), []
    real = builder._render

    def render(roles, generation):
        long.extend([len(roles)] * (len(roles) > 129))
        return real(roles, generation)

    monkeypatch.setattr(builder, "_render", render)
    assert builder.count_each(messages, ends) == counts
    assert len(long) <= most


def test_count_leaves_out_a_system_message_that_the_template_makes_up(make_tokenizer):
    default = "{% if messages[0].role != 'system' %}<|im_start|>You are helpful<|im_end|>{% endif %}"
    plain = SequenceBuilder(make_tokenizer(PLAIN), 512)
    assert SequenceBuilder(make_tokenizer(default + PLAIN), 512).count(OLD) == plain.count(OLD)


def _contents(tokenizer, sequence) -> str:
    """The contents of the messages, run together."""
    text = tokenizer.decode(sequence.input_ids)
    return "".join(part.partition("\n")[2] for part in text.replace("<|im_end|>\n", "").split("<|im_start|>"))


@pytest.mark.parametrize("spare", range(0, 60, 4))
def test_the_oldest_text_goes_first_and_the_sequence_is_filled(qwen_like, builder, spare):
    bare = len(builder.build([SYSTEM, QUESTION], "It is 4711.", memory_tokens=5).input_ids)
    tight = SequenceBuilder(qwen_like, bare + spare)
    sequence = tight.build([SYSTEM, QUESTION], "It is 4711.", memory_tokens=5, history=OLD)
    text = qwen_like.decode(sequence.input_ids)
    full = builder.build([SYSTEM, QUESTION], "It is 4711.", memory_tokens=5, history=OLD)
    content = sum(len(builder.encode_content(message.content)) for message in OLD)
    assert len(sequence.input_ids) <= bare + spare < len(full.input_ids)
    assert supervised(sequence) == supervised(full)
    assert text.count("<|image_pad|>") == 5
    assert SYSTEM.content in text
    assert QUESTION.content in text
    assert 0 < sequence.dropped_tokens <= content
    kept = qwen_like.decode([t for m in OLD for t in builder.encode_content(m.content)][sequence.dropped_tokens :])
    assert kept in _contents(qwen_like, sequence), "what stays is the newest text, without a gap"


def test_dropping_goes_on_through_the_prompt_and_takes_the_system_message_last(qwen_like, builder):
    recent = [SYSTEM, Turn("user", "Hello there."), Turn("assistant", "Good day."), QUESTION]
    shortest = builder.build([Turn("user", "")], "4711")
    seen = []
    for length in range(len(builder.build(recent, "4711").input_ids), len(shortest.input_ids) - 1, -1):
        sequence = SequenceBuilder(qwen_like, length).build(recent, "4711")
        text = qwen_like.decode(sequence.input_ids)
        assert len(sequence.input_ids) <= length
        assert sequence.answer_tokens == shortest.answer_tokens
        seen.append([message.content in text for message in (SYSTEM, QUESTION, *recent[1:3])])
    for before, after in pairwise(seen):
        assert all(was or not now for was, now in zip(before, after, strict=True)), "nothing returns"
    assert [True, False, False, False] in seen, "the system message outlives the question"
    assert seen[-1] == [False] * 4


def test_no_room_for_memory_and_answer_is_an_error_that_says_what_to_change(qwen_like):
    with pytest.raises(DataError, match=r"more than max_seq_length 64.*Raise model\.max_seq_length"):
        SequenceBuilder(qwen_like, 64).build([QUESTION], "4711", memory_tokens=60)


def test_memory_needs_a_user_message(builder):
    with pytest.raises(DataError, match="no user message"):
        builder.build([SYSTEM], "4711", memory_tokens=9)


def test_a_builder_survives_the_way_to_a_worker_process(builder):
    copy = pickle.loads(pickle.dumps(builder))
    assert copy.build([QUESTION], "4711").input_ids == builder.build([QUESTION], "4711").input_ids
