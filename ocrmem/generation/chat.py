"""The verb ``chat``: a conversation at the terminal, or from a pipe, whose older turns become pages."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from ocrmem.arguments import as_paths
from ocrmem.config import RunConfig
from ocrmem.console import note, print_problems
from ocrmem.errors import ConfigError, DataError, OcrMemError
from ocrmem.files import disk_errors, write_bytes, write_text
from ocrmem.generation.ask import remembering
from ocrmem.generation.memory import Memory, MemoryAnswer
from ocrmem.generation.question import STDIN

_HELP = "/pages [DIR] draws the memory, /tokens counts it, /save FILE keeps the conversation, /quit leaves"


class ChatResult(TypedDict):
    """What was said.

    Attributes:
        answers: question, text, text_tokens, memory_tokens and pages of each, as `MemoryAnswer` has them.
        summary: empty: all was printed as it was said.
    """

    answers: list[dict[str, Any]]
    summary: list[str]


def chat(
    files: str | Path | Sequence[str | Path] = (), adapter: str | Path | None = None, *, config: RunConfig | None = None
) -> ChatResult:
    """Read questions from standard input and answer each on standard output, until the input ends or says /quit.

    Args:
        files: remembered before the first question; see `ask`.
        adapter, config: as `ask`.

    Raises:
        OcrMemError: as `ask`, before the first question; a question that cannot be answered is told, and the next read.
    """
    files = as_paths("ocrmem.chat", files)
    if "-" in files:
        raise ConfigError.of("-", "is standard input, which the questions come from", "Save the text to a file")
    repl = Repl(remembering(files, adapter, config))
    repl.run()
    count = len(repl.answers)
    note(f"{count} {'answer' if count == 1 else 'answers'}. {repl.memory.told()}")
    fields = ("question", "text", "text_tokens", "memory_tokens", "pages")
    answers = [{name: getattr(answer, name) for name in fields} for answer in repl.answers]
    return {"answers": answers, "summary": []}


class Repl:
    """Reads lines, answers them, and obeys those that begin with a slash.

    Args:
        memory: of what was read before; what is said comes to it.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.answers: list[MemoryAnswer] = []
        self._saved: set[Path] = set()
        self._at_terminal = sys.stdin.isatty()

    def run(self) -> None:
        """Go on until the input ends, says /quit, or nobody reads the answers."""
        if self._at_terminal:
            with suppress(ImportError):
                import readline  # noqa: F401  # gives input() a history and editing
            note(f"{self.memory.told()} Ask, or {_HELP}.")
        with suppress(EOFError, BrokenPipeError):
            while (line := self._next()) != "/quit":
                self._obey(line)

    def _next(self) -> str:
        """Return the next line. Raises EOFError at the end of the input."""
        try:
            return input("> " if self._at_terminal else "").strip()
        except UnicodeDecodeError:
            raise DataError.of(STDIN, "is not UTF-8", "Convert it with iconv") from None
        except KeyboardInterrupt:
            if not self._at_terminal:
                raise
            print()
            return ""

    def _obey(self, line: str) -> None:
        try:
            if line.startswith("/"):
                with disk_errors("ocrmem chat"):
                    self._command(*line.split(maxsplit=1))
            elif line:
                self._answer(line)
        except OcrMemError as error:
            print_problems(error.problems)
        except KeyboardInterrupt:
            self.memory.session.forget()
            note("Cancelled; the question is forgotten.")

    def _answer(self, question: str) -> None:
        answer = self.memory.say(question)
        self.answers.append(answer)
        print(answer.text, flush=True)
        note(answer.told)
        for warning in answer.warnings:
            note(f"Warning: {warning}.")

    def _command(self, name: str, argument: str = "") -> None:
        if name == "/tokens" and not argument:
            print(self.memory.told(), flush=True)
        elif name == "/pages":
            self._pages(argument)
        elif name == "/save" and argument:
            self._save(Path(argument))
        else:
            raise ConfigError.of(name, "is no command, or lacks a name behind it", f"Commands: {_HELP}")

    def _pages(self, directory: str) -> None:
        pages = self.memory.pages()
        size = self.memory.session.maker.config.render.token_size
        for number, page in enumerate(pages, 1):
            print(f"page {number}: {int(page.ink_mask(size).sum())} vision tokens", flush=True)
            if directory:
                write_bytes(Path(directory) / f"page-{number:03d}.png", page.png())
        if not pages:
            print(self.memory.told(), flush=True)
        elif directory:
            print(f"drawn in {directory}", flush=True)

    def _save(self, path: Path) -> None:
        if not self.answers:
            raise ConfigError.of("/save", "has no answer to keep yet", "Ask something first")
        if path.exists() and path not in self._saved:
            raise ConfigError.of(str(path), "is there already", "Name a new file")
        messages = [
            {"role": message.role, "content": message.content} | ({} if message.weight else {"weight": 0})
            for message in self.memory.conversation()
        ]
        write_text(path, json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
        self._saved.add(path)
        print(f"saved in {path}", flush=True)
