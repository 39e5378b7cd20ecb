"""The verb ``convert``: conversations of other forms and containers as the JSONL that `validate` accepts.

    ocrmem convert conversations.json --output my-data

Each file gives one of the same name, so that ``eval*`` stays held out. ``conversion.json`` says of each what was read,
written, left out and why, and what a record had besides.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

from ocrmem import __version__
from ocrmem.arguments import as_path, as_paths
from ocrmem.console import progress_bar
from ocrmem.conversations.content import ContentFault
from ocrmem.conversations.fields import FieldCounts, meaning_faults, unused_fields
from ocrmem.conversations.lines import MAX_LINE_BYTES
from ocrmem.conversations.parse import MAX_MESSAGES, parse_line, usable_id
from ocrmem.conversations.rejects import Rejects, rejects_file
from ocrmem.conversations.sources import shown_path
from ocrmem.conversion.columns import read_map, read_mapped
from ocrmem.conversion.containers import Record, open_container
from ocrmem.conversion.draft import Draft, json_line
from ocrmem.conversion.forms import FORMS, each_conversation, form_of
from ocrmem.errors import ConfigError, DataError, MissingInputError, Problem, ProblemList
from ocrmem.files import replacing_directory, sha256_file, write_json

REPORT = "conversion.json"
LEFT_OUT = Path("left-out") / "rejects.jsonl"  # in a folder of its own: validate reads every .jsonl beside the report


class ConvertResult(TypedDict):
    """What conversion.json holds, and lines for a person.

    Attributes:
        files: of each source its name, sha256, container, forms, output, and what became of its records.
        written: conversations.
        left_out: records that became none.
    """

    files: list[dict[str, Any]]
    written: int
    left_out: int
    summary: list[str]


@dataclass
class _Account:
    """What became of one file's records."""

    read: int = 0
    written: int = 0
    joined: int = 0  # to the conversation of a record before it
    left_out: int = 0
    forms: Counter[str] = field(default_factory=Counter)
    problems: ProblemList = field(default_factory=ProblemList)
    aside: Counter[str] = field(default_factory=Counter)
    unused: FieldCounts = field(default_factory=FieldCounts)

    def as_dict(self) -> dict[str, Any]:
        return {
            "forms": dict(self.forms.most_common()),
            "read": self.read,
            "written": self.written,
            "joined": self.joined,
            "left_out": self.left_out,
            "reasons": [problem.as_dict() for problem in self.problems.listed()],
            "left_aside": dict(self.aside.most_common()),
            "unused_fields": self.unused.most_common(),
        }


def convert(
    files: str | Path | Sequence[str | Path],
    output: Path | str,
    *,
    form: str | None = None,
    columns: str | None = None,
    join: int = 1,
    skip_bad: bool = False,
) -> ConvertResult:
    """Write the conversations of files as JSONL, each under the name of its file, and conversion.json.

    Args:
        files: JSONL, a JSON document, either with gzip or in UTF-16, or parquet.
        output: a new or empty folder, or one that an earlier run made.
        form: a name of `FORMS`; None: each record's is told from its content.
        columns: the files' own names for a conversation's fields, as ``prompt=question,completion=answer``.
        join: how many records, one after the other, become one conversation.
        skip_bad: leave out what is no conversation of text, and keep it in left-out/rejects.jsonl.

    Raises:
        ConfigError: an argument is wrong, or the folder holds something else.
        MissingInputError: a file is not there or cannot be read.
        DataError: a file is damaged, or a record cannot become a conversation and ``skip_bad`` is not given; then
            nothing is written.
    """
    paths, target = (
        [Path(file) for file in as_paths("ocrmem.convert", files)],
        as_path("ocrmem.convert(output)", output),
    )
    _check_places(paths, target)
    if form is not None and form not in FORMS:
        raise ConfigError.of("--from", f"is {form!r}", f"Use one of {', '.join(FORMS)}")
    named = read_map(columns) if columns else None
    read = _reader(form, named)
    described: list[dict[str, Any]] = []
    problems: list[Problem] = []
    written, left_out = 0, 0
    with replacing_directory(target) as folder, rejects_file(folder / LEFT_OUT) as rejects:
        writer = _Writer(read, join, rejects)
        with progress_bar("converting", len(paths)) as bar:
            for path, name in zip(paths, _output_names(paths), strict=True):
                account = _Account()
                kind = writer.write(path, folder / name, account)
                source = {"source": shown_path(path), "sha256": sha256_file(path), "container": kind, "output": name}
                described.append({**source, **account.as_dict()})
                problems += account.problems.listed()
                written, left_out = written + account.written, left_out + account.left_out
                bar.advance()
        if problems and not skip_bad:
            message = f"{left_out:,} of {left_out + written:,} records cannot be used; nothing was written"
            remedy = "Correct them, or leave them out with --skip-bad, which keeps them in left-out/rejects.jsonl"
            raise DataError([*problems, Problem("convert", message, remedy)])
        if not written:
            message = "there is no conversation of text; nothing was written"
            raise DataError([*problems, Problem("convert", message, "Name files with conversations")])
        write_json(folder / REPORT, {"ocrmem": __version__, "files": described})
    return {
        "files": described,
        "written": written,
        "left_out": left_out,
        "summary": list(_summary(described, target, written)),
    }


def _check_places(paths: Sequence[Path], target: Path) -> None:
    for path in paths:
        if path.is_dir():
            raise ConfigError.of(shown_path(path), "is a folder", f"Name its files, as in {shown_path(path)}/*.json")
        if path.exists() and not path.is_file():
            raise ConfigError.of(shown_path(path), "is no regular file", "Save what it gives into one")
        try:
            with path.open("rb"):
                pass
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a file name"
            raise MissingInputError.of(shown_path(path), f"cannot be read ({reason})", "Name a readable file") from None
        if target.resolve() in path.resolve().parents:
            message = f"holds {shown_path(path)}, which is to be read"
            raise ConfigError.of("--output", f"{shown_path(target)} {message}", "Name another folder")
    if target.exists() and not target.is_dir():
        raise ConfigError.of("--output", f"{shown_path(target)} is not a folder", "Name a new one")
    held = {path.name for path in target.iterdir()} if target.exists() else set()
    if held and held != {*_made_before(target), REPORT, LEFT_OUT.parts[0]}:
        message = f"{shown_path(target)} holds files that an earlier run did not make"
        raise ConfigError.of("--output", message, "Name a new or empty folder")


def _made_before(target: Path) -> set[str]:
    try:
        return {file["output"] for file in json.loads((target / REPORT).read_bytes())["files"]}
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _output_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each file, its own with .jsonl; where two have the same, the later ones a number."""
    names: list[str] = []
    for path in paths:
        stem = shown_path(Path(path.name.removesuffix(".gz"))).rpartition(".")[0] or shown_path(Path(path.name))
        stem = stem.lstrip(".") or "data"
        taken = (f"{stem}{f'-{number}' if number > 1 else ''}.jsonl" for number in range(1, len(paths) + 1))
        names.append(next(name for name in taken if name not in names))
    return names


def _reader(form: str | None, columns: dict[str, str] | None) -> Callable[[Any, Draft], str]:
    """Return what reads a record into a draft and says its form's title."""

    def read(record: Any, draft: Draft) -> str:
        if columns:
            read_mapped(record, columns, draft)
            return "own names"
        chosen = FORMS[form] if form else form_of(record)
        if form and not chosen.matches(record):
            raise ContentFault(f"is not of the form {chosen.title}", "Leave out --from, or name another form")
        chosen.read(record, draft)
        return chosen.title

    return read


class _Writer:
    """Writes files of conversations; an id or a conversation that was written before is known over all of them."""

    def __init__(self, read: Callable[[Any, Draft], str], join: int, rejects: Rejects) -> None:
        self._read, self._join, self._rejects = read, join, rejects
        self._ids: set[str] = set()
        self._contents: dict[str, str] = {}  # the place of each conversation, by a hash of its messages

    def write(self, path: Path, target: Path, account: _Account) -> str:
        """Convert one file; return what it was packed in."""
        with path.open("rb") as source, target.open("wb") as lines:
            container = open_container(path, source)
            group: list[tuple[Record, Draft]] = []
            for record in each_conversation(container.records):
                account.read += 1
                try:
                    draft = self._draft(record, account)
                except RecursionError:
                    raise DataError.of(record.place, "is nested too deeply", "Take it out of the file") from None
                if draft:
                    if group and _system(group[0][1]) != _system(draft):
                        self._add(group, lines, account)
                    group.append((record, draft))
                    if len(group) == self._join:
                        self._add(group, lines, account)
            if group:
                self._add(group, lines, account)
            return container.kind

    def _draft(self, record: Record, account: _Account) -> Draft | None:
        """Read one record; None if it is left out."""
        draft = Draft()
        if record.problem:
            self._leave_out(record, [record.problem], account)
            return None
        try:
            title = self._read(record.value, draft)
        except ContentFault as fault:
            self._leave_out(record, [Problem(record.place, fault.message, fault.remedy)], account)
            return None
        value = record.value if isinstance(record.value, dict) else {}
        besides = {key: held for key, held in value.items() if key not in draft.used}
        parsed = parse_line(json_line({"messages": draft.messages}), record.place)
        problems = [*(Problem(record.place, *fault) for fault in meaning_faults(besides)), *parsed.problems]
        if not problems and (first := self._contents.setdefault(parsed.id, record.place)) != record.place:
            problems.append(Problem(record.place, f"says the same as {first}", "Nothing is lost by leaving it out"))
        if problems:
            self._leave_out(record, problems, account)
            return None
        account.forms[title] += 1
        account.aside.update(draft.aside)
        account.unused.add(unused_fields(value, draft.used))
        return draft

    def _add(self, group: list[tuple[Record, Draft]], lines: BinaryIO, account: _Account) -> None:
        """Write a group of records as one conversation, and empty the group."""
        (record, draft), *others = group
        messages = draft.messages + [
            message for _, other in others for message in other.messages[_system(other) is not None :]
        ]
        made: dict[str, Any] = {"messages": messages}
        given = None if draft.id is None else usable_id(draft.id)
        if given is not None and given not in self._ids:
            made = {"id": given, **made}
            self._ids.add(given)
        elif draft.id is not None:
            account.aside["ids that are no text or were given before"] += 1
        line = json_line(made)
        problem = None
        if len(line) > MAX_LINE_BYTES:
            message = f"is longer than the {MAX_LINE_BYTES >> 20} MiB that one conversation may have"
            problem = Problem(record.place, message, "Split it into several conversations")
        elif len(messages) > MAX_MESSAGES:
            problem = Problem(
                record.place, f"has {len(messages)} messages together with those joined to it", "Join fewer"
            )
        if problem:
            for member, _ in group:
                self._leave_out(member, [replace(problem, place=member.place)], account)
        else:
            lines.write(line + b"\n")
            account.written += 1
            account.joined += len(others)
        group.clear()

    def _leave_out(self, record: Record, problems: list[Problem], account: _Account) -> None:
        account.left_out += 1
        for problem in problems:
            account.problems.add(problem)
        self._rejects.add(record.place, problems, record.raw or json_line(record.value))


def _system(draft: Draft) -> str | None:
    """Return the system message that a conversation begins with."""
    first = draft.messages[0] if draft.messages else {}
    return str(first.get("content")) if first.get("role") == "system" else None


def _summary(described: Sequence[dict[str, Any]], target: Path, written: int) -> Iterator[str]:
    for file in described:
        counts = ", ".join(
            f"{file[key]:,} {key.replace('_', ' ')}"
            for key in ("read", "written", "joined", "left_out")
            if key != "joined" or file[key]
        )
        forms = ", ".join(f"{title} ({count:,})" for title, count in file["forms"].items()) or "no form"
        yield f"{file['source']}: {file['container']} of {forms}: {counts}"
        for reason in file["reasons"]:
            yield f"  left out ({reason.get('count', 1):,}): {reason['message']}, at {reason['place']}"
        for title, key in (("left aside", "left_aside"), ("fields that are not used", "unused_fields")):
            if file[key]:
                yield f"  {title}: {', '.join(f'{name} ({count:,})' for name, count in list(file[key].items())[:20])}"
    name = shown_path(target)
    yield f"convert: {written:,} conversations in {name}; check them: ocrmem validate --set data.path={name}"
