"""An HTTP server on loopback that answers what it is told: for questions of a second, not for a protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from support.serving import serving


class Web:
    """Where the server is, what it answers, and what it was asked.

    Attributes:
        answers: status, JSON and headers by the beginning of a path; what is not named is 404.
        calls: path and Authorization header of every request.
        sent: bodies of those that had one.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: dict[str, tuple[int, Any, dict[str, str]]] = {}
        self.calls: list[tuple[str, str | None]] = []
        self.sent: list[bytes] = []


@contextmanager
def web() -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.calls.append((self.path, self.headers.get("Authorization")))
            if length := int(self.headers.get("Content-Length") or 0):
                state.sent.append(self.rfile.read(length))
            fitting = [answer for start, answer in state.answers.items() if self.path.startswith(start)]
            status, value, headers = fitting[0] if fitting else (404, {}, {})
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as url:
        state = Web(url)
        yield state
