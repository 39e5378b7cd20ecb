"""The retry policy: what passes by itself, how long is waited, when it is given up; all by a clock of the test."""

from __future__ import annotations

import ssl
import threading
import urllib.error
from http.client import RemoteDisconnected
from types import SimpleNamespace
from typing import Any

import pytest
from support.clock import HandClock

from ocrmem.retry import ATTEMPTS, LONGEST_RETRY_AFTER, Retry, is_transient, retrying


def with_status(status: int, name: str = "status") -> Exception:
    error = Exception(f"HTTP {status}")
    setattr(error, name, SimpleNamespace(status_code=status) if name == "response" else status)
    return error


def botocore_error(status: int) -> Exception:
    error: Any = Exception("An error occurred")
    error.response = {"ResponseMetadata": {"HTTPStatusCode": status}}
    return error


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def hub_offline() -> Exception:
    from huggingface_hub.errors import OfflineModeIsEnabled

    return caused(OSError("not in the cache"), OfflineModeIsEnabled("offline mode"))


def of_library(module: str, name: str, *arguments: Any, **keywords: Any) -> Exception:
    __import__(module)
    import sys

    error: Exception = getattr(sys.modules[module], name)(*arguments, **keywords)
    return error


CASES = [
    ("refused connection", ConnectionRefusedError("refused"), True),
    ("time-out", TimeoutError("timed out"), True),
    ("closed without an answer", RemoteDisconnected(), True),
    ("503", with_status(503), True),
    ("429 of urllib", urllib.error.HTTPError("http://x", 429, "busy", {}, None), True),  # type: ignore[arg-type]
    ("502 of requests", with_status(502, "response"), True),
    ("500 of botocore", botocore_error(500), True),
    ("wrapped", caused(ValueError("no model"), with_status(504)), True),
    ("requests", of_library("requests", "ConnectionError", "reset"), True),
    ("urllib3", of_library("urllib3.exceptions", "ProtocolError", "broken"), True),
    ("httpx", of_library("httpx", "ConnectError", "refused"), True),
    ("aiohttp", of_library("aiohttp", "ServerDisconnectedError"), True),
    ("botocore", of_library("botocore.exceptions", "EndpointConnectionError", endpoint_url="http://x"), True),
    ("404", with_status(404), False),
    ("403 behind a broken connection", caused(with_status(403), ConnectionResetError()), False),
    ("certificate", urllib.error.URLError(ssl.SSLCertVerificationError("CERTIFICATE_VERIFY_FAILED")), False),
    ("missing file", FileNotFoundError("config.json"), False),
    ("full disk", OSError(28, "No space left on device"), False),
    ("hub, offline on purpose", hub_offline(), False),
    ("our own mistake", KeyError("x"), False),
]


@pytest.mark.parametrize(("error", "transient"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_may_pass_by_itself(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient


def test_pauses_double_up_to_the_longest_and_are_spread() -> None:
    clock = HandClock()
    retry = Retry("a call", give_up=1000, first=1, longest=8, clock=clock)
    assert all(retry.wait(None) for _ in range(200))
    for pause, most in zip(clock.waits, [1, 2, 4, 8] + [8] * 196, strict=True):
        assert most / 2 <= pause <= most
    assert max(clock.waits[4:]) - min(clock.waits[4:]) > 2, "clients of one server would come back together"


def test_it_gives_up_after_the_time_and_a_success_begins_anew(capsys: pytest.CaptureFixture[str]) -> None:
    clock = HandClock()
    retry = Retry("model hub", give_up=60, clock=clock)
    assert retry.wait("503")
    clock.advance(59)
    assert retry.wait("503")
    clock.advance(2)
    assert not retry.wait("503")
    assert capsys.readouterr().err == "model hub: 503; trying again for up to 60 s\n"
    retry.succeeded()
    assert retry.wait("504")
    assert clock.waits[-1] <= 0.5
    assert "504" in capsys.readouterr().err


def test_a_kind_of_failure_with_a_limit_of_its_own_is_given_up_by_that_limit_and_says_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = HandClock()
    retry = Retry("API", give_up=600, clock=clock)
    assert retry.wait("503")
    clock.advance(200)
    assert retry.wait("403", within=120), "its time begins with the first of its kind"
    assert retry.wait("503")
    clock.advance(121)
    assert not retry.wait("403", within=120)
    assert capsys.readouterr().err.splitlines() == [
        "API: 503; trying again for up to 600 s",
        "API: 403; trying again for up to 120 s",
    ]
    clock.advance(300)
    assert not retry.wait("429"), "600 s after the first failure of any kind"


@pytest.mark.parametrize(("asked", "waited"), [(7.0, 7.0), (0.0, 0.0), (9999.0, LONGEST_RETRY_AFTER)])
def test_a_server_that_says_how_long_is_obeyed(asked: float, waited: float) -> None:
    clock = HandClock()
    assert Retry("a call", give_up=60, clock=clock).wait(None, asked)
    assert clock.waits == [waited]


def test_a_stopped_wait_gives_up() -> None:
    stop = threading.Event()
    retry = Retry("a call", give_up=60, stop=stop)
    stop.set()
    assert not retry.wait(None)


@pytest.mark.parametrize(("failures", "calls"), [(0, 1), (ATTEMPTS - 1, ATTEMPTS), (ATTEMPTS, ATTEMPTS)])
def test_a_call_is_made_again_so_often(failures: int, calls: int) -> None:
    made: list[int] = []

    def call() -> str:
        made.append(1)
        if len(made) <= failures:
            raise ConnectionResetError
        return "answer"

    try:
        assert retrying("a call", call, clock=HandClock()) == "answer"
    except ConnectionResetError:
        assert failures == ATTEMPTS
    assert len(made) == calls


def test_what_will_not_pass_is_raised_at_once() -> None:
    clock = HandClock()
    with pytest.raises(KeyError):
        retrying("a call", {}.popitem, clock=clock)
    assert clock.waits == []
