"""Memory: read once, asked often; in the form of the notes of training; natural mistakes are told in a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.sessions import Read, new_session

from ocrmem import ChatSession
from ocrmem.conversations import Message
from ocrmem.errors import ConfigError, DataError
from ocrmem.generation.memory import Memory
from ocrmem.generation.question import read_question
from ocrmem.synthetic.notes import load_phrases, note_conversations

TEXT = "ana tea was the\n" * 20
QUESTIONS = ("ask ana", "ask the tea", "the")


def new_memory(max_pages: int = 8) -> Memory:
    return Memory(new_session(max_pages, context_threshold=0))


def test_pages_are_encoded_once_and_memory_is_read_once_for_all_questions() -> None:
    memory = new_memory().read(TEXT)
    read = Read(memory.session.model)
    ends = memory.session.maker.builder.memory.end
    first = memory.ask(QUESTIONS[0])
    assert (first.encoded_pages, read.pages()) == (first.pages, first.pages)
    assert read.tokens() > first.memory_tokens > 64
    for question in QUESTIONS[1:]:
        later = memory.ask(question)
        ids = memory.session.prepare(memory._asked(question)).case.question.input_ids
        assert (later.encoded_pages, read.pages()) == (0, 0)
        assert read.tokens() <= len(ids) - ids.index(ends) - 1, "only what stands behind the memory is read"
        assert later.text == new_memory().read(TEXT).ask(question).text
        assert (later.text_tokens, later.memory_tokens, later.pages) == (
            first.text_tokens,
            first.memory_tokens,
            first.pages,
        )


def test_a_picture_is_a_page_before_all_text_and_a_message_with_its_name(tmp_path: Path) -> None:
    drawn = new_memory().read(TEXT).pages()[0]
    (tmp_path / "scan.png").write_bytes(drawn.png())
    memory = new_memory().read("ana").read_picture(tmp_path / "scan.png")
    assert [message.content for message in memory.messages[::2]] == ["ana", "[scan.png]"]
    picture, text = memory.pages()
    assert np.array_equal(picture.bits, drawn.bits)
    assert text.hash == new_memory().read("ana").read("[scan.png]").pages()[0].hash
    first, again = memory.ask(QUESTIONS[0]), memory.ask(QUESTIONS[1])
    assert (first.pages, first.encoded_pages, again.encoded_pages) == (2, 2, 0)
    assert first.memory_tokens > new_memory().read("ana").read("[scan.png]").ask(QUESTIONS[0]).memory_tokens
    with Image.open(tmp_path / "scan.png") as image:
        assert new_memory().read_picture(image).pages()[0].hash == picture.hash


def test_pictures_are_the_first_pages_to_be_dropped(tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(new_memory().read(TEXT).pages()[0].png())
    memory = new_memory(max_pages=1).read("ana").read_picture(tmp_path / "scan.png")
    assert [page.atlas_version for page in memory.pages()] != ["picture-1"]
    assert any("the 1 oldest pages of 2" in warning for warning in memory.ask("the").warnings)


def test_what_is_read_later_is_added_at_the_cost_of_the_last_page() -> None:
    memory = new_memory().read(TEXT)
    memory.ask(QUESTIONS[0])
    grown = memory.read("ana").ask(QUESTIONS[0])
    assert grown.encoded_pages == 1
    assert grown.text == new_memory().read(TEXT).read("ana").ask(QUESTIONS[0]).text


def test_a_text_is_drawn_and_asked_about_as_the_notes_of_training_are() -> None:
    noted = load_phrases().acknowledgements[0]
    messages = next(
        conversation["messages"][:4]
        for conversation in note_conversations(60, 1, facts=2, words=30)
        if conversation["messages"][2]["content"] == noted and conversation["messages"][4]["role"] == "assistant"
    )
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    memory = new_memory()
    memory.session.model.config.system = messages[0]["content"]
    asked, _ = read_question(json.dumps({"messages": messages}).encode(), "notes")
    trained = memory.session.prepare(asked)
    memory.read(f"\n{messages[1]['content']}\r\n")
    found = memory.session.prepare(memory._asked(messages[3]["content"]))
    assert found.sample.pages == trained.sample.pages
    assert found.case.question == trained.case.question
    assert len(memory.pages()) == len(trained.sample.pages)


@pytest.mark.parametrize(("trained", "read", "found"), [("tea", [], "tea"), ("tea", ["ana"], "ana"), (None, [], None)])
def test_the_system_message_of_training_stands_in_front_unless_one_was_read(
    trained: str | None, read: list[str], found: str | None
) -> None:
    memory = new_memory()
    memory.session.model.config.system = trained
    memory.messages += [Message("system", text) for text in read]
    said = [message.content for message in memory.read("the").conversation() if message.role == "system"]
    assert said == ([found] if found else [])


def test_a_short_text_is_memory_too() -> None:
    answer = new_memory().read("ana").ask("the")
    assert answer.memory_tokens > 2
    assert answer.pages == 1
    assert answer.told.startswith(f"{answer.text_tokens} text tokens became {answer.memory_tokens} memory tokens on 1")


def test_text_over_the_last_page_is_warned_of_with_numbers() -> None:
    memory = new_memory(max_pages=2).read(TEXT)
    (warning,) = memory.ask("the").warnings
    whole = memory.session.prepare(memory._asked("the")).sample
    lost = whole.history_tokens - whole.text_tokens
    assert lost > 0
    assert f"the 1 oldest pages of 3, with {lost:,} of {whole.history_tokens:,} text tokens" in warning


def test_comparisons_have_the_tokens_that_they_say() -> None:
    memory = new_memory().read(TEXT)
    plain, answer = memory.ask("the"), memory.ask("the", compare=True)
    assert (plain.compared, plain.text) == ({}, answer.text)
    tokens = {name: other.tokens for name, other in answer.compared.items()}
    assert tokens["full_text"] == answer.text_tokens
    assert 0 < tokens["truncated"] <= answer.memory_tokens
    assert tokens["no_memory"] == 0
    assert answer.compared["truncated"].dropped_tokens > 0
    assert memory.ask("the").text == answer.text, "what is compared leaves the memory as it was"


def test_what_is_said_becomes_memory() -> None:
    memory = new_memory()
    first = memory.say("ana tea")
    assert first.memory_tokens == 0
    assert " text tokens became " in memory.told()
    assert [message.role for message in memory.messages] == ["user", "assistant"]
    assert memory.say("the").pages == 1
    with pytest.raises(DataError, match="question: is empty"):
        memory.say(" ")
    assert len(memory.messages) == 4


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: new_memory().read(Path("notes.txt")), "takes a string, and was given PosixPath"),  # type: ignore[arg-type]
    (lambda: new_memory().read(" \n"), "Memory.read: is empty"),
    (lambda: new_memory().read("half \ud83d"), "half of a surrogate pair"),
    (lambda: new_memory().ask("the"), r"has nothing to answer from. Call read\(text\) first"),
    (lambda: new_memory().read("ana").ask(""), "question: is empty"),
    (lambda: new_memory().read("ana").ask(["the"]), "takes a string, and was given"),  # type: ignore[arg-type]
    (lambda: ChatSession("adapter"), r"was given 'adapter'. Load one .*ChatSession\.open\(adapter=\.\.\.\)"),  # type: ignore[arg-type]
    (lambda: ChatSession.open("adapter"), r"takes a RunConfig first, and was given 'adapter'"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES, ids=[message[:24] for _, message in MISTAKES])
def test_a_mistake_is_told_in_one_line(mistake: Callable[[], object], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        mistake()
    assert len(str(caught.value).splitlines()) == 1
