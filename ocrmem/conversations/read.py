"""All conversations of a file or a directory, or every problem in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ocrmem.config import RunConfig
from ocrmem.console import note, progress_bar
from ocrmem.conversations.lines import MAX_LINE_BYTES, Line, read_lines
from ocrmem.conversations.located import StoredConversations
from ocrmem.conversations.parse import CONTENT_ID, parse_line
from ocrmem.conversations.rejects import rejects_file
from ocrmem.conversations.sources import data_files, name_split, shown_path, split_of, whole_file_fault
from ocrmem.conversations.types import Conversation
from ocrmem.errors import DataError, Problem
from ocrmem.families import DEFAULT, Family

_SHOW_PROGRESS_OVER = 64 << 20
Reject = Callable[[str, list[Problem], bytes | Iterator[bytes]], None]
Found = tuple[Conversation, int, Line]  # with the number of its file


@dataclass(frozen=True)
class Reading:
    """Everything in some data files.

    Attributes:
        conversations: the good ones, in the order of the files.
        problems: of the others, in the order of the files.
        unusable: a file could not be read at all, so leaving out bad lines would lose good ones.
    """

    conversations: list[Conversation]
    problems: list[Problem]
    unusable: bool


def read_conversations(config: RunConfig, rejects: Path | None = None) -> list[Conversation]:
    """Read ``data.path``.

    Args:
        config: ``data.path``, ``data.skip_bad``, ``data.eval_fraction`` and the base model's family are used.
        rejects: with ``data.skip_bad``, the file for the rejected lines, each unchanged and with its reason. It is
            written in any case, empty if nothing was rejected (`ocrmem.conversations.rejects`).

    Returns:
        Conversations in the order of the files (by name) and lines.

    Raises:
        DataError: with every problem of every file; with ``data.skip_bad``, if a file cannot be read or nothing good
            is left.
    """
    reader = _Reader(Path(config.data.path), config.data.eval_fraction, config.model.family)
    return [conversation for conversation, _, _ in _good(reader, config, rejects)]


def locate_conversations(config: RunConfig, rejects: Path | None = None) -> StoredConversations:
    """Do as `read_conversations` for data that may be larger than the memory: check every line now, and read it again
    when its conversation is asked for."""
    reader = _Reader(Path(config.data.path), config.data.eval_fraction, config.model.family)
    located = StoredConversations(reader.files, reader.fraction, config.model.family)
    for _, number, line in _good(reader, config, rejects):
        located.add(number, line)
    return located


def scan_conversations(path: Path, eval_fraction: float, family: Family = DEFAULT) -> Reading:
    """Read all good conversations and list the problems of the others; bad data raises nothing.

    Args:
        path: a .jsonl file or a directory of them.
        eval_fraction: share of conversations held out, by hash of the id, if no file is named eval*.jsonl.
        family: of the base model, for `parse_line`.
    """
    reader = _Reader(path, eval_fraction, family)
    good = [conversation for conversation, _, _ in reader.read()]
    return Reading(good, reader.problems, reader.unusable)


def _good(reader: _Reader, config: RunConfig, rejects: Path | None) -> Iterator[Found]:
    """Yield every good conversation, and raise at the end as `read_conversations` does."""
    if not config.data.skip_bad:
        yield from reader.read()
        if reader.problems:
            raise DataError(reader.problems)
        return
    if rejects is not None and any(rejects.resolve() == file.resolve() for file in reader.files):
        raise DataError.of(str(rejects), "is one of the data files to be read", "Move it out of data.path")
    good = 0
    with rejects_file(rejects) as rejected:
        for found in reader.read(rejected.add):
            good += 1
            yield found
    if reader.unusable or not good:
        raise DataError(reader.problems)
    if rejected.count:
        where = f"; see {rejects}" if rejects else ""
        note(f"left out {rejected.count} bad lines of {config.data.path}, kept {good}{where}")


class _Reader:
    """Goes through data files once.

    Attributes:
        files: in order.
        fraction: of conversations to hold out; 0 if a file holds those for evaluation.
        problems, unusable: as in `Reading`.
    """

    def __init__(self, path: Path, eval_fraction: float, family: Family) -> None:
        self.files, missing = data_files(path)
        self.fraction = 0.0 if any(name_split(file) == "eval" for file in self.files) else eval_fraction
        self.problems: list[Problem] = [missing] if missing else []
        self.unusable = missing is not None
        self._family = family
        self._places: dict[str, str] = {}  # of every id
        self._reject: Reject = lambda *_: None

    def read(self, reject: Reject = lambda *_: None) -> Iterator[Found]:
        """Yield the good conversations; ``reject`` gets the place, the problems and the bytes of every other line."""
        self._reject = reject
        size = sum(file.stat().st_size for file in self.files)
        bar = progress_bar("reading conversations", size) if size > _SHOW_PROGRESS_OVER else nullcontext()
        with bar as shown:
            for number, file in enumerate(self.files):
                try:
                    yield from self._read_file(number, file, shown.advance if shown else lambda _: None)
                except OSError as error:
                    message = f"cannot be read ({error.strerror})"
                    self.problems.append(Problem(shown_path(file), message, "Check the file's permissions"))
                    self.unusable = True

    def _read_file(self, number: int, file: Path, advance: Callable[[float], None]) -> Iterator[Found]:
        if fault := whole_file_fault(file):
            with file.open("rb") as handle:
                self._refuse(fault.place, [fault], iter(lambda: handle.read(1 << 20), b""))
            return
        name, blank = shown_path(file), True
        for line in read_lines(file):
            place = f"{name}:{line.number}"
            blank = blank and line.whole and not line.head.strip()
            if not line.whole:
                message = f"is longer than the {MAX_LINE_BYTES >> 20} MiB that one conversation may have"
                problem = Problem(place, message, "Split it into several conversations, one a line")
                self._refuse(place, [problem], line.chunks())
                line.finish()
            elif line.head.strip() and (conversation := self._read_line(line, place, file)):
                yield conversation, number, line
            advance(line.size + 1)
        if blank:
            self._refuse(name, [Problem(name, "is empty", "Write conversations into it, or remove it")], b"")

    def _read_line(self, line: Line, place: str, file: Path) -> Conversation | None:
        parsed = parse_line(line.head, place, self._family)
        if not parsed.problems and (first := self._places.setdefault(parsed.id, place)) != place:
            same = parsed.id.startswith(CONTENT_ID)
            what = f"says the same as {first}" if same else f"has the id {parsed.id!r} of {first} again"
            remedy = "Remove one of the two" if same else "Remove one of the two, or give it another id"
            parsed.problems.append(Problem(place, what, remedy))
        if parsed.problems:
            self._refuse(place, parsed.problems, line.head)
            return None
        return Conversation(parsed.id, parsed.messages, split_of(file, parsed.id, self.fraction), place)

    def _refuse(self, place: str, problems: list[Problem], content: bytes | Iterator[bytes]) -> None:
        self.problems.extend(problems)
        self._reject(place, problems, content)
