"""Commands as a page shows them, in fenced blocks of shell, run in the order of the page."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ocrmem.cli import main

_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Return the commands of a page: continued lines joined, what `&&` joins apart, comments left out."""
    lines = "\n".join(_BLOCK.findall(page.read_text(encoding="utf-8"))).replace("\\\n", " ").splitlines()
    return [command for line in lines for command in _split(line)]


def _split(line: str) -> Iterator[str]:
    """Yield the commands of a line, as they stand there."""
    text = re.sub(r"\s+#.*$", "", line) if line.strip() else ""
    yield from (part for part in text.split(" && ") if part and not part.startswith("#"))


def run(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command where the process is, `ocrmem` in this process; return its exit code and what it printed.

    `cd` moves on; what stands in front of `| ocrmem` is its standard input; all else is the shell's.
    """
    before, bar, after = command.partition(" | ocrmem ")
    if bar or command.startswith("ocrmem "):
        typed = _shell(before).stdout if bar else b""
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed), encoding="utf-8"))
        code = main(shlex.split(after if bar else command.removeprefix("ocrmem ")))
        return code, "".join(capsys.readouterr())
    if command.startswith("cd "):
        os.chdir(command.removeprefix("cd "))
        return 0, ""
    done = _shell(command)
    return done.returncode, (done.stdout + done.stderr).decode()


def run_page(
    page: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    left_out: frozenset[str] = frozenset(),
    smaller: Mapping[str, str] | None = None,
    may_say_no: frozenset[str] = frozenset(),
) -> list[tuple[str, str]]:
    """Run the commands of a page but those that begin with one of ``left_out``; return what was run, and what it said.

    Args:
        smaller: what is replaced in commands, so that they take seconds.
        may_say_no: beginnings of commands that may end with exit code 1.
    """
    done = []
    for command in commands(page):
        if command.startswith(tuple(left_out)):
            continue
        for long, short in (smaller or {}).items():
            command = command.replace(long, short)
        code, said = run(command, monkeypatch, capsys)
        allowed = (0, 1) if command.startswith(tuple(may_say_no)) else (0,)
        assert code in allowed, f"{page.name}: {command} ended with {code}:\n{said}"
        done.append((command, said))
    return done


def _shell(command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["bash", "-c", command], capture_output=True, check=False)
