"""All conversations of a file or a directory, or every reason why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from ocrmem.config import RunConfig
from ocrmem.console import note, progress_bar
from ocrmem.conversations.lines import MAX_LINE_BYTES, Line, read_lines
from ocrmem.conversations.located import StoredConversations
from ocrmem.conversations.parse import CONTENT_ID, parse_line
from ocrmem.conversations.rejects import RejectsFile
from ocrmem.conversations.sources import data_files, name_split, shown_path, split_of, whole_file_fault
from ocrmem.conversations.types import Conversation
from ocrmem.errors import DataError, Problem
from ocrmem.families import DEFAULT, Family

_SHOW_PROGRESS_OVER = 64 << 20
Reject = Callable[[str, list[Problem], bytes | Iterator[bytes]], None]
Keep = Callable[[Conversation, int, Line], None]


@dataclass
class Findings:
    """What was found besides good conversations.

    Attributes:
        problems: all of them, in the order of the files.
        files: the files read.
        unusable: a file could not be read at all, so going on without bad lines would lose good ones.
        good: conversations that were found good.
    """

    problems: list[Problem] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    unusable: bool = False
    good: int = 0


@dataclass
class Reading(Findings):
    """What reading gave.

    Attributes:
        conversations: the good ones, in the order of the files.
    """

    conversations: list[Conversation] = field(default_factory=list)


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
    kept: list[Conversation] = []
    _find(config, rejects, lambda files: _appending(kept))
    return kept


def locate_conversations(config: RunConfig, rejects: Path | None = None) -> StoredConversations:
    """The same as `read_conversations`, for data that may be larger than the memory: every line is read and judged
    now, and read again when its conversation is asked for."""
    located: list[StoredConversations] = []

    def keep_in(files: Sequence[Path]) -> Keep:
        located.append(StoredConversations(files, _fraction(files, config.data.eval_fraction), config.model.family))
        return lambda _, number, line: located[0].add(number, line)

    _find(config, rejects, keep_in)
    return located[0]


def scan_conversations(
    path: Path, eval_fraction: float, reject: Reject | None = None, family: Family = DEFAULT
) -> Reading:
    """Read all that is good and list all that is not; raises nothing for bad data.

    Args:
        path: a .jsonl file or a directory of them.
        eval_fraction: share of conversations held out, by hash of the id, when no file is named eval*.jsonl.
        reject: called for every rejected line with its place, its problems and its bytes.
        family: of the base model, for `parse_line`.
    """
    kept: list[Conversation] = []
    found = _scan(path, eval_fraction, lambda files: _appending(kept), reject, family)
    return Reading(found.problems, found.files, found.unusable, found.good, kept)


def _find(config: RunConfig, rejects: Path | None, keep_in: Callable[[Sequence[Path]], Keep]) -> None:
    """Hand every good conversation on, or raise; see `read_conversations`."""
    path, fraction = Path(config.data.path), config.data.eval_fraction
    if not config.data.skip_bad:
        found = _scan(path, fraction, keep_in, None, config.model.family)
        if found.problems:
            raise DataError(found.problems)
        return
    if rejects is not None and any(rejects.resolve() == file.resolve() for file in data_files(path)[0]):
        raise DataError.of(str(rejects), "is one of the data files to be read", "Move it out of data.path")
    with RejectsFile(rejects) as rejected:
        found = _scan(path, fraction, keep_in, rejected.add, config.model.family)
    if found.unusable or not found.good:
        raise DataError(found.problems)
    if rejected.count:
        where = f"; see {rejects}" if rejects else ""
        note(f"left out {rejected.count} bad lines of {path}, kept {found.good}{where}")


def _scan(
    path: Path,
    eval_fraction: float,
    keep_in: Callable[[Sequence[Path]], Keep],
    reject: Reject | None,
    family: Family,
) -> Findings:
    files, problem = data_files(path)
    if problem is not None:
        return Findings(problems=[problem], unusable=True)
    reader = _Reader(_fraction(files, eval_fraction), keep_in(files), reject, Findings(files=files), family)
    size = sum(file.stat().st_size for file in files)
    bar = progress_bar("reading conversations", size) if size > _SHOW_PROGRESS_OVER else nullcontext()
    with bar as shown:
        for number, file in enumerate(files):
            try:
                reader.read_file(number, file, shown.advance if shown else None)
            except OSError as error:
                message = f"cannot be read ({error.strerror})"
                reader.found.problems.append(Problem(shown_path(file), message, "Check the file's permissions"))
                reader.found.unusable = True
    return reader.found


def _fraction(files: Sequence[Path], eval_fraction: float) -> float:
    """The share of conversations to hold out: none where a file holds those for evaluation."""
    return 0.0 if any(name_split(file) == "eval" for file in files) else eval_fraction


def _appending(kept: list[Conversation]) -> Keep:
    return lambda conversation, _, __: kept.append(conversation)


@dataclass
class _Reader:
    """Goes through files and remembers the ids it has seen."""

    fraction: float
    keep: Keep
    reject: Reject | None
    found: Findings
    family: Family
    places: dict[str, str] = field(default_factory=dict)

    def read_file(self, number: int, file: Path, advance: Callable[[float], None] | None) -> None:
        if fault := whole_file_fault(file):
            with file.open("rb") as handle:
                self._refuse(fault.place, [fault], iter(lambda: handle.read(1 << 20), b""))
            return
        name = shown_path(file)
        blank = True
        for line in read_lines(file):
            place = f"{name}:{line.number}"
            if not line.whole:
                self._refuse_long(line, place)
                blank = False
            elif line.head.strip():
                self._read_line(line, place, number, file)
                blank = False
            if advance:
                advance(line.size + 1)
        if blank:
            fault = Problem(name, "is empty", "Write conversations into it, or remove it")
            self._refuse(fault.place, [fault], b"")

    def _read_line(self, line: Line, place: str, number: int, file: Path) -> None:
        parsed = parse_line(line.head, place, self.family)
        if not parsed.problems and (first := self.places.setdefault(parsed.id, place)) != place:
            same = parsed.id.startswith(CONTENT_ID)
            what = f"says the same as {first}" if same else f"has the id {parsed.id!r} of {first} again"
            remedy = "Remove one of the two" if same else "Remove one of the two, or give it another id"
            parsed.problems.append(Problem(place, what, remedy))
        if parsed.problems:
            self._refuse(place, parsed.problems, line.head)
            return
        split = split_of(file, parsed.id, self.fraction)
        self.keep(Conversation(parsed.id, parsed.messages, split, place), number, line)
        self.found.good += 1

    def _refuse_long(self, line: Line, place: str) -> None:
        message = f"is longer than the {MAX_LINE_BYTES >> 20} MiB that one conversation may have"
        problem = Problem(place, message, "Split it into several conversations, one a line")
        self._refuse(place, [problem], line.chunks())
        line.finish()

    def _refuse(self, place: str, problems: list[Problem], content: bytes | Iterator[bytes]) -> None:
        self.found.problems.extend(problems)
        if self.reject:
            self.reject(place, problems, content)
