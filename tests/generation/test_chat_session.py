"""A chat: each turn draws and encodes what it adds, and is answered as if the session had begun with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from support.sessions import Read, new_session

from ocrmem.config import RunConfig
from ocrmem.conversations import Conversation
from ocrmem.dataset.samples import SampleMaker
from ocrmem.errors import DataError
from ocrmem.generation.chat_session import ChatSession, as_trained
from ocrmem.generation.question import read_question
from ocrmem.rendering import history
from ocrmem.synthetic.tokenizer import build_tiny_tokenizer

LINES = 8  # of a page: 256 px, 32 px a line
Turn = dict[str, str]


def turns(count: int) -> list[Turn]:
    """So many questions with their answers, each pair another; a message takes a line of a page."""
    words = build_tiny_tokenizer().get_vocab()
    known = sorted(word for word in words if word.isalpha() and len(word) == 3)
    found: list[Turn] = []
    for number in range(count):
        said = f"{known[number % 40]} {known[number // 40 % 40]}"
        found += [{"role": "user", "content": f"{said} ana"}, {"role": "assistant", "content": f"{said} the"}]
    return found


def ask(messages: list[Turn]) -> list[Turn]:
    return [*messages, {"role": "user", "content": "ask ana"}]


def question(messages: list[Turn]) -> Conversation:
    return read_question(json.dumps({"messages": ask(messages)}).encode(), "messages")[0]


class Counts:
    """Pages drawn and pages encoded since the last look."""

    def __init__(self, session: ChatSession, monkeypatch: pytest.MonkeyPatch) -> None:
        self._drawn, self._read = 0, Read(session.model)
        real = history.draw_page

        def draw_page(*args: Any) -> Any:
            self._drawn += 1
            return real(*args)

        monkeypatch.setattr(history, "draw_page", draw_page)

    def taken(self) -> tuple[int, int]:
        found, self._drawn = (self._drawn, self._read.pages()), 0
        return found


def test_a_new_turn_draws_and_encodes_its_last_page_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    session = new_session()
    counts = Counts(session, monkeypatch)
    said = turns(64 * LINES // 2)
    session.prepare(question(said[: 62 * LINES + 2]))
    assert counts.taken() == (63, 63)
    for more, expected in ((4, 1), (6, 1), (8, 1), (10, 1), (14, 1), (18, 2)):  # the last one begins a 65th page
        prepared = session.prepare(question([*said, *turns(500)][: 62 * LINES + more]))
        assert counts.taken() == (expected, expected)
        assert prepared.encoded_pages == expected
    assert len(prepared.sample.pages) == 64
    assert prepared.sample.dropped_pages == 1
    session.prepare(question([*said, *turns(500)][: 62 * LINES + 18]))
    assert counts.taken() == (0, 0), "the same question is not drawn again and needs no encoder"


def test_every_turn_is_prepared_as_the_dataset_s_own_samples_are() -> None:
    session = new_session(max_pages=2, cached_pages=1)
    maker = SampleMaker(as_trained(RunConfig(), session.model.config), build_tiny_tokenizer())
    for count in range(0, 28, 3):
        asked = question(turns(20)[:8] + turns(count))
        prepared = session.prepare(asked)
        assert prepared.sample == maker.make(asked).samples[-1]
        assert len(session.features) <= 2, "features of no more pages than one history has are kept"
        fresh = new_session(max_pages=2).prepare(asked)
        torch.testing.assert_close(prepared.case.features, fresh.case.features, atol=1e-5, rtol=1e-5)


def test_an_answer_is_that_of_a_session_that_starts_with_it() -> None:
    session, said = new_session(max_pages=8), turns(12)
    session.answer(ask(said[:10]))
    later = session.answer(ask(said))
    fresh = new_session(max_pages=8).answer(ask(said))
    assert (later["pages"], later["encoded_pages"], fresh["encoded_pages"]) == (3, 2, 3)
    assert later | {"encoded_pages": 0} == fresh | {"encoded_pages": 0}


def test_a_new_turn_is_read_from_the_first_page_that_it_changes_on() -> None:
    session, said = new_session(max_pages=8), turns(14)
    read = Read(session.model)
    first = session.answer(ask(said[:20]))
    whole = read.tokens()
    then = session.answer(ask(said[:22]))
    new = read.tokens()
    read_again = then["memory_tokens"] - new
    assert (first["pages"], then["pages"]) == (3, 3)
    assert whole > first["memory_tokens"]
    assert 2 * 64 * 0.2 < read_again < then["memory_tokens"], "two full pages were read before"
    session.answer(ask(said[:22]))
    assert read.tokens() == 1, "the same question again is read no more"
    session.answer([{"role": "system", "content": "ana"}, *ask(said[:22])])
    assert read.tokens() > then["memory_tokens"], "memory behind other words is another one"


def test_a_changed_message_changes_the_memory() -> None:
    session, said = new_session(max_pages=8), turns(12)
    session.prepare(question(said))
    changed = [{"role": "user", "content": "other words"}, *said[1:]]
    prepared = session.prepare(question(changed))
    assert prepared.sample.pages == new_session(max_pages=8).prepare(question(changed)).sample.pages
    assert prepared.encoded_pages == 1, "the other pages are the same"


def test_the_pages_used_longest_ago_are_forgotten_first() -> None:
    session = new_session(max_pages=2, cached_pages=4)
    chats = [turns(40)[start : start + 10] for start in (0, 20, 40)]
    assert [session.prepare(question(chat)).encoded_pages for chat in chats[:2]] == [2, 2]
    assert session.prepare(question(chats[0])).encoded_pages == 0
    assert session.prepare(question(chats[2])).encoded_pages == 2
    assert len(session.features) == 4
    assert session.prepare(question(chats[0])).encoded_pages == 0, "used after the second chat"
    assert session.prepare(question(chats[1])).encoded_pages == 2


def test_a_short_history_stays_text() -> None:
    found = new_session().answer(ask(turns(1)[:1]))
    assert (found["memory"], found["encoded_pages"], found["feature_distance"]) == (False, 0, None)


def test_messages_that_ask_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="no user turn"):
        new_session().answer([{"role": "system", "content": "x"}])
