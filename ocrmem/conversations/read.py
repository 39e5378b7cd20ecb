"""All conversations of a file or a directory, or every problem in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

from ocrmem.config import RunConfig
from ocrmem.console import note, progress_bar
from ocrmem.conversations.fields import FieldCounts
from ocrmem.conversations.lines import MAX_LINE_BYTES, Line, read_lines
from ocrmem.conversations.located import StoredConversations
from ocrmem.conversations.parse import CONTENT_ID, parse_line
from ocrmem.conversations.rejects import rejects_file
from ocrmem.conversations.sources import data_files, name_split, shown_path, split_of, whole_file_fault
from ocrmem.conversations.types import Conversation
from ocrmem.errors import DataError, Problem, ProblemList
from ocrmem.families import DEFAULT, Family

_SHOW_PROGRESS_OVER = 64 << 20
Advance = Callable[[float], None]
Reject = Callable[[str, list[Problem], bytes | Iterator[bytes]], None]
Found = tuple[Conversation, int, Line]  # with the number of its file


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
    reader = ConversationReader(Path(config.data.path), config.data.eval_fraction, config.model.family)
    return [conversation for conversation, _, _ in _good(reader, config, rejects)]


def locate_conversations(config: RunConfig, rejects: Path | None = None) -> StoredConversations:
    """Do as `read_conversations` for data that may be larger than the memory: check every line now, and read it again
    when its conversation is asked for."""
    reader = ConversationReader(Path(config.data.path), config.data.eval_fraction, config.model.family)
    located = StoredConversations(reader.files, reader.fraction, config.model.family)
    for _, number, line in _good(reader, config, rejects):
        located.add(number, line)
    return located


def _good(reader: ConversationReader, config: RunConfig, rejects: Path | None) -> Iterator[Found]:
    """Yield every good conversation, and raise at the end as `read_conversations` does."""
    if not config.data.skip_bad:
        yield from reader.read()
        if reader.problems:
            raise DataError(reader.problems.listed())
        return
    if rejects is not None and any(rejects.resolve() == file.resolve() for file in reader.files):
        raise DataError.of(str(rejects), "is one of the data files to be read", "Move it out of data.path")
    good = 0
    with rejects_file(rejects) as rejected:
        for found in reader.read(rejected.add):
            good += 1
            yield found
    if reader.unusable or not good:
        raise DataError(reader.problems.listed())
    if rejected.count:
        note(f"left out {rejected.count} bad lines of {config.data.path}, kept {good}")


class ConversationReader:
    """Goes through data files once. Bad data raises nothing: the good conversations are given, the rest is listed.

    Args:
        path: a .jsonl file or a directory of them.
        eval_fraction: share of conversations held out, by hash of the id, if no file is named eval*.jsonl.
        family: of the base model, for `parse_line`.

    Attributes:
        files: in order.
        size: of all files in bytes.
        fraction: of conversations to hold out; 0 if a file holds those for evaluation.
        problems: so far, in the order of the files.
        unusable: a file could not be read at all, so leaving out bad lines would lose good ones.
        refused: lines and files with problems so far.
        unused: fields that were not read so far, with the number of lines that have them.
    """

    def __init__(self, path: Path, eval_fraction: float, family: Family = DEFAULT) -> None:
        self.files, missing = data_files(path)
        self.size = sum(file.stat().st_size for file in self.files)
        self.fraction = 0.0 if any(name_split(file) == "eval" for file in self.files) else eval_fraction
        self.problems = ProblemList()
        self.unusable = missing is not None
        self.refused = 0
        self.unused = FieldCounts()
        if missing:
            self.problems.add(missing)
        self._family = family
        self._places: dict[str, str] = {}  # of every id
        self._reject: Reject = lambda *_: None

    def read(self, reject: Reject = lambda *_: None, advance: Advance | None = None) -> Iterator[Found]:
        """Yield the good conversations, with the number of their file and their line.

        Args:
            reject: gets the place, the problems and the bytes of every other line.
            advance: is told the bytes that have been read; without it, large data shows a progress bar.
        """
        self._reject = reject
        bar = progress_bar("reading conversations", self.size) if self.size > _SHOW_PROGRESS_OVER else nullcontext()
        with nullcontext() if advance else bar as shown:
            advance = advance or (shown.advance if shown else lambda _: None)
            for number, file in enumerate(self.files):
                try:
                    yield from self._read_file(number, file, advance)
                except OSError as error:
                    message = f"cannot be read ({error.strerror})"
                    self.problems.add(Problem(shown_path(file), message, "Check the file's permissions"))
                    self.unusable = True

    def _read_file(self, number: int, file: Path, advance: Advance) -> Iterator[Found]:
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
        self.unused.add(parsed.unused)
        if not parsed.problems and (first := self._places.setdefault(parsed.id, place)) != place:
            same = parsed.id.startswith(CONTENT_ID)
            what = f"says the same as {first}" if same else f"has the id {parsed.id!r} of {first} again"
            remedy = "Remove one of the two" if same else "Remove one of the two, or give it another id"
            if name_split(file) != name_split(Path(first.rpartition(":")[0])):
                remedy += "; to hold out other conversations, leave such a file away and set data.eval_fraction"
            parsed.problems.append(Problem(place, what, remedy))
        if parsed.problems:
            self._refuse(place, parsed.problems, line.head)
            return None
        return Conversation(parsed.id, parsed.messages, split_of(file, parsed.id, self.fraction), place)

    def _refuse(self, place: str, problems: list[Problem], content: bytes | Iterator[bytes]) -> None:
        self.refused += 1
        for problem in problems:
            self.problems.add(problem)
        self._reject(place, problems, content)
