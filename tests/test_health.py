"""One question to a service: a refusal is an answer, silence is a typed error, and no secret is repeated."""

from __future__ import annotations

import socket

import pytest
from support.web import web

from ocrmem.health import NoAnswerError, ask

KEY = "hf_" + "a" * 20


def test_an_answer_is_read_and_a_refusal_is_an_answer() -> None:
    with web() as server:
        server.answers = {"/well": (200, {"pageSize": 1}, {}), "/odd": (200, None, {})}
        well = ask(f"{server.url}/well", "a-token")
        assert (well.refused, well.json()) == (False, {"pageSize": 1})
        assert server.calls[-1] == ("/well", "Bearer a-token")
        absent = ask(f"{server.url}/absent")
        assert (absent.refused, absent.status, absent.reason, absent.json()) == (True, 404, "Not Found", None)
        assert server.calls[-1] == ("/absent", None)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "no address", f"http://{KEY} x/", f"{KEY}://host"])
def test_no_answer_is_a_typed_error_without_secrets(url: str) -> None:
    with pytest.raises(NoAnswerError) as caught:
        ask(url)
    assert str(caught.value)
    assert KEY not in str(caught.value)


def test_silence_ends_after_the_time_given() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NoAnswerError, match="timed out"):
        ask(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.2)
