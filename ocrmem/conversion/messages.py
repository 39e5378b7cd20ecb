"""What is said in a file of conversations, in any form and container that `convert` knows: to read, not to learn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ocrmem.conversations import Message
from ocrmem.conversations.content import ContentFault
from ocrmem.conversations.fields import media_faults
from ocrmem.conversations.parse import parse_line
from ocrmem.conversion.containers import Record, open_container
from ocrmem.conversion.draft import Draft, json_line
from ocrmem.conversion.forms import each_conversation, form_of
from ocrmem.errors import DataError, Problem, ProblemList
from ocrmem.families import Family

# What `parse_line` wants of a conversation, whatever the file's lacks; taken off again.
_TURN = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "?"}]
_REMEDY = (
    "Correct it, or run `ocrmem convert FILE --output converted --skip-bad`, which leaves out what is no conversation, "
    "and name what it writes"
)


def is_conversation(name: str, handle: BinaryIO) -> bool:
    """Return whether a file's first record is a conversation of a known form."""
    try:
        first = next(each_conversation(open_container(Path(name), handle).records), None)
        return first is not None and first.problem is None and form_of(first.value) is not None
    except (ContentFault, DataError, RecursionError):
        return False


def messages_of(name: str, handle: BinaryIO, family: Family) -> list[Message]:
    """Return the messages of all conversations of a file, one after the other.

    Args:
        name: of the file, in errors.
        handle: the file, open at its beginning.
        family: of the base model; it writes tool calls as text.

    Raises:
        DataError: the file is damaged or says nothing; or every record that is no conversation of text.
    """
    messages: list[Message] = []
    problems = ProblemList()
    for record in each_conversation(open_container(Path(name), handle).records):
        if record.problem:
            problems.add(record.problem)
            continue
        try:
            messages += _said(record, family)
        except RecursionError:
            problems.add(Problem(record.place, "is nested too deeply", _REMEDY))
        except ContentFault as fault:  # whose own remedy may be an option of `convert`
            problems.add(Problem(record.place, fault.message, _REMEDY))
        except DataError as error:
            for problem in error.problems:
                problems.add(problem)
    if problems:
        raise DataError(problems.listed())
    if not messages:
        raise DataError.of(name, "holds no messages", "Name a file in which something is said")
    return messages


def _said(record: Record, family: Family) -> tuple[Message, ...]:
    draft = Draft()
    form_of(record.value).read(record.value, draft)
    parsed = parse_line(json_line({"messages": [*draft.messages, *_TURN]}), record.place, family)
    if faults := [*_media(record), *parsed.problems]:
        raise DataError(faults)
    return parsed.messages[: -len(_TURN)]


def _media(record: Record) -> Iterator[Problem]:
    value = record.value if isinstance(record.value, dict) else {}
    return (Problem(record.place, *fault) for fault in media_faults(value))
