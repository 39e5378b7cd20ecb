"""A chat: each turn draws and encodes what it adds, and is answered as if the session had begun with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from support.models import small_base, small_config, small_encoder

from ocrmem.config import RunConfig
from ocrmem.conversations import Conversation
from ocrmem.dataset.samples import SampleMaker
from ocrmem.errors import DataError
from ocrmem.generation.chat_session import ChatSession, as_trained
from ocrmem.generation.question import read_question
from ocrmem.model.modeling import MEMModel
from ocrmem.rendering import history
from ocrmem.synthetic.tokenizer import build_tiny_tokenizer

LINES = 8  # of a page: 256 px, 32 px a line
Turn = dict[str, str]


def new_session(max_pages: int = 64, **options: Any) -> ChatSession:
    """A session on random models, whose pages hold eight short messages."""
    tokenizer = build_tiny_tokenizer()
    config = small_config(
        max_pages=max_pages,
        max_seq_length=8192,
        placeholder_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
    )
    base = small_base(len(tokenizer), max_position_embeddings=8192)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MEMModel(config, base, small_encoder()).eval()
    return ChatSession(model, tokenizer, RunConfig.model_validate({"model": {"device": "cpu"}}), **options)


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
        self._drawn = self._encoded = 0
        real = history.draw_page

        def draw_page(*args: Any) -> Any:
            self._drawn += 1
            return real(*args)

        def encoded(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            self._encoded += len(inputs[0])

        monkeypatch.setattr(history, "draw_page", draw_page)
        assert session.model.ocr_embed is not None
        session.model.ocr_embed.register_forward_pre_hook(encoded)

    def taken(self) -> tuple[int, int]:
        found = (self._drawn, self._encoded)
        self._drawn = self._encoded = 0
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
