"""All conversations of a file or a directory, or every reason why not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from ocrmem.config import RunConfig
from ocrmem.console import note, progress_bar
from ocrmem.conversations.lines import MAX_LINE_BYTES, Line, read_lines
from ocrmem.conversations.parse import CONTENT_ID, parse_line
from ocrmem.conversations.rejects import RejectsFile
from ocrmem.conversations.sources import data_files, name_split, shown_path, whole_file_fault
from ocrmem.conversations.types import Conversation, Split
from ocrmem.errors import DataError, Problem

_SHOW_PROGRESS_OVER = 64 << 20
Reject = Callable[[str, list[Problem], bytes | Iterator[bytes]], None]


@dataclass
class Reading:
    """What reading gave.

    Attributes:
        conversations: the good ones, in the order of the files.
        problems: all of them, in the order of the files.
        files: the files read.
        unusable: a file could not be read at all, so going on without bad lines would lose good ones.
    """

    conversations: list[Conversation] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    unusable: bool = False


def read_conversations(config: RunConfig, rejects: Path | None = None) -> list[Conversation]:
    """Read ``data.path``.

    Args:
        config: ``data.path``, ``data.skip_bad`` and ``data.eval_fraction`` are used.
        rejects: with ``data.skip_bad``, where the rejected lines go, each unchanged and with its reason; the
            file is written in any case, empty when nothing was rejected (`ocrmem.conversations.rejects`).

    Returns:
        Conversations in the order of the files (by name) and lines.

    Raises:
        DataError: with every problem of every file; with ``data.skip_bad``, when a file cannot be read or
            nothing good is left.
    """
    path = Path(config.data.path)
    if not config.data.skip_bad:
        reading = scan_conversations(path, config.data.eval_fraction)
        if reading.problems:
            raise DataError(reading.problems)
        return reading.conversations
    if rejects is not None and any(rejects.resolve() == file.resolve() for file in data_files(path)[0]):
        raise DataError.of(str(rejects), "is one of the data files to be read", "Move it out of data.path")
    with RejectsFile(rejects) as rejected:
        reading = scan_conversations(path, config.data.eval_fraction, rejected.add)
    if reading.unusable or not reading.conversations:
        raise DataError(reading.problems)
    if rejected.count:
        where = f"; see {rejects}" if rejects else ""
        note(f"left out {rejected.count} bad lines of {path}, kept {len(reading.conversations)}{where}")
    return reading.conversations


def scan_conversations(path: Path, eval_fraction: float, reject: Reject | None = None) -> Reading:
    """Read all that is good and list all that is not; raises nothing for bad data.

    Args:
        path: a .jsonl file or a directory of them.
        eval_fraction: share of conversations held out, by hash of the id, when no file is named eval*.jsonl.
        reject: called for every rejected line with its place, its problems and its bytes.
    """
    files, problem = data_files(path)
    if problem is not None:
        return Reading(problems=[problem], unusable=True)
    named_eval = any(name_split(file) == "eval" for file in files)
    reader = _Reader(0.0 if named_eval else eval_fraction, reject, Reading(files=files))
    size = sum(file.stat().st_size for file in files)
    bar = progress_bar("reading conversations", size) if size > _SHOW_PROGRESS_OVER else nullcontext()
    with bar as shown:
        for file in files:
            try:
                reader.read_file(file, shown.advance if shown else None)
            except OSError as error:
                message = f"cannot be read ({error.strerror})"
                reader.reading.problems.append(Problem(shown_path(file), message, "Check the file's permissions"))
                reader.reading.unusable = True
    return reader.reading


@dataclass
class _Reader:
    """Goes through files and remembers the ids it has seen."""

    fraction: float
    reject: Reject | None
    reading: Reading
    places: dict[str, str] = field(default_factory=dict)

    def read_file(self, file: Path, advance: Callable[[float], None] | None) -> None:
        if fault := whole_file_fault(file):
            with file.open("rb") as handle:
                self._refuse(fault.place, [fault], iter(lambda: handle.read(1 << 20), b""))
            return
        split, name = name_split(file), shown_path(file)
        blank = True
        for line in read_lines(file):
            place = f"{name}:{line.number}"
            if not line.whole:
                self._refuse_long(line, place)
                blank = False
            elif line.head.strip():
                self._read_line(line.head, place, split)
                blank = False
            if advance:
                advance(line.size + 1)
        if blank:
            fault = Problem(name, "is empty", "Write conversations into it, or remove it")
            self._refuse(fault.place, [fault], b"")

    def _read_line(self, raw: bytes, place: str, split: Split) -> None:
        parsed = parse_line(raw, place)
        if not parsed.problems and (first := self.places.setdefault(parsed.id, place)) != place:
            same = parsed.id.startswith(CONTENT_ID)
            what = f"says the same as {first}" if same else f"has the id {parsed.id!r} of {first} again"
            remedy = "Remove one of the two" if same else "Remove one of the two, or give it another id"
            parsed.problems.append(Problem(place, what, remedy))
        if parsed.problems:
            self._refuse(place, parsed.problems, raw)
            return
        if split == "train" and held_out(parsed.id, self.fraction):
            split = "eval"
        self.reading.conversations.append(Conversation(parsed.id, parsed.messages, split, place))

    def _refuse_long(self, line: Line, place: str) -> None:
        message = f"is longer than the {MAX_LINE_BYTES >> 20} MiB that one conversation may have"
        problem = Problem(place, message, "Split it into several conversations, one a line")
        self._refuse(place, [problem], line.chunks())
        line.finish()

    def _refuse(self, place: str, problems: list[Problem], content: bytes | Iterator[bytes]) -> None:
        self.reading.problems.extend(problems)
        if self.reject:
            self.reject(place, problems, content)


def held_out(conversation_id: str, fraction: float) -> bool:
    """Whether a conversation is held out, by the first 8 bytes of its id's sha256: the same on every machine
    and whatever else is in the data."""
    digest = hashlib.sha256(conversation_id.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64
