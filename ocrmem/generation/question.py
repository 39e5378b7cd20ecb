"""The question: one conversation from a file, from standard input or from memory, closed so that it makes a sample."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ocrmem.conversations import Conversation, Message
from ocrmem.conversations.parse import parse_line
from ocrmem.conversations.types import ROLES
from ocrmem.errors import ConfigError, DataError, MissingInputError, Problem
from ocrmem.families import DEFAULT, Family

STDIN = "standard input"  # what errors call it
_PLACEHOLDER_ANSWER = "?"  # stands where the model is to answer, so that the usual rules split the turns


def read_question(raw: bytes, place: str, family: Family = DEFAULT) -> tuple[Conversation, str | None]:
    """Parse one conversation that ends with a question, or with an answer to it.

    Args:
        raw: JSON of one conversation, in one of the forms of training data.
        place: its name in errors.
        family: of the base model, for `parse_line`.

    Returns:
        The conversation, closed by a placeholder that alone has weight, so that it gives exactly the sample
        of the question; and the conversation's own answer, if it has one.

    Raises:
        DataError: every fault found.
    """
    value = _one_object(raw, place)
    form = "messages" if value.get("messages") is not None else "conversations"
    given = value.get(form)
    if not isinstance(given, list) or not given:
        raise DataError.of(place, "has no messages", 'Write {"messages": [{"role": "user", "content": "..."}]}')
    role, content = ("role", "content") if form == "messages" else ("from", "value")
    ending = {role: "assistant", content: _PLACEHOLDER_ANSWER}
    end = given[-1] if isinstance(given[-1], dict) else {}
    answered = ROLES.get(str(end.get("role", end.get("from"))).strip().lower()) == "assistant"
    closed = given if answered else [*given, ending]
    parsed = parse_line(json.dumps({**value, form: closed}).encode(), place, family)
    if parsed.problems:
        raise DataError(parsed.problems)
    *earlier, last = parsed.messages
    if not any(message.role == "user" for message in earlier):
        raise DataError.of(place, "asks nothing: it has no user message", "End it with a question")
    return asking(parsed.id, earlier, place), last.content if answered else None


def read_source(source: str | Path, remedy: str) -> tuple[bytes, str]:
    """Read a file, or standard input for ``-``; also return what errors call it.

    Args:
        remedy: what to give in place of a file that is not there.

    Raises:
        MissingInputError: it is not there; a name like it is suggested.
        ConfigError: it cannot be read.
    """
    if str(source) == "-":
        return sys.stdin.buffer.read(), STDIN
    path = Path(source)
    try:
        return path.read_bytes(), str(path)
    except FileNotFoundError:
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = "".join(f"Did you mean {path.with_name(name)}? " for name in get_close_matches(path.name, beside, 1))
        raise MissingInputError.of(str(path), "is not there", near + remedy) from None
    except IsADirectoryError:
        raise ConfigError.of(str(path), "cannot be read: it is a folder", f"Name its files, as in {path}/*") from None
    except OSError as error:
        raise ConfigError.of(str(path), f"cannot be read ({error.strerror})", "Give a readable file") from None


def asking(id: str, messages: Sequence[Message], place: str) -> Conversation:
    """Return the conversation of which the only sample is the answer to the last message."""
    closed = [*(replace(message, weight=0) for message in messages), Message("assistant", _PLACEHOLDER_ANSWER)]
    return Conversation(id, tuple(closed), "eval", place)


def _is_object(line: bytes) -> bool:
    """Return whether a line is a JSON object by itself."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _one_object(raw: bytes, place: str) -> dict[str, Any]:
    """Parse the one JSON object of a file, on one line or several."""
    lines = [line for line in raw.splitlines() if line.strip()]
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        if len(lines) > 1 and _is_object(lines[0]):
            remedy = "Give one of them"
            if place == STDIN:
                remedy += ": put `head -n 1 |` before the command"
            elif Path(place).is_file():
                first = f"sed -n 1p {shlex.quote(place)}"
                remedy += f", the first with: `{first} | ocrmem generate --conversation -`"
            raise DataError.of(place, f"holds {len(lines)} conversations, one a line", remedy) from None
        problems = parse_line(raw.strip(), place).problems
        raise DataError(problems or Problem(place, "is not one JSON object", "Give one conversation")) from None
    if not isinstance(value, dict):
        raise DataError.of(place, "is not a JSON object", 'Write {"messages": [...]}')
    return value
