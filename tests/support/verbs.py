"""Verbs as commands in processes of their own that cost no imports: one process imports all, and forks the others."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from support.ranks import environment, unmeasured

# All but what few tests need; some are optional.
IMPORTS = (
    "ocrmem.cli",
    "ocrmem.dataset.build",
    "ocrmem.encoder.encode",
    "ocrmem.smoke_test",
    "ocrmem.synthetic.tokenizer",
    "ocrmem.training.launch",
    "ocrmem.training.train",
    "ocrmem.evaluation.evaluate",
    "ocrmem.registry.mlflow_backend",
    "ocrmem.versioning",
    "alembic.command",
    "deepspeed",
    "dvc.fs",
    "dvc_data.hashfile.build",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "pyarrow.parquet",
    "sqlalchemy.dialects.sqlite",
    "transformers.models.qwen3.modeling_qwen3",
)
LIMIT = 600.0  # seconds; bounds a hang, nothing else
FOLLOW = 2.0


@dataclass(frozen=True)
class Command:
    """A command line of ocrmem.

    Attributes:
        cwd: where it runs.
        arguments: what stands behind ``ocrmem``.
        before: ``module:function`` and its argument, called in the process before the verb.
        environment: variables.
    """

    cwd: str
    arguments: tuple[str, ...]
    before: tuple[str, Any] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code, negative for a signal, and what it printed."""

    code: int
    stdout: str
    stderr: str


class Verbs:
    """Runs commands. Made by `running_verbs`."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder

    def together(self, *commands: Command) -> list[Done]:
        """Run commands at the same time, to their ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        folder = str(self._folder)
        request = {"folder": folder, "commands": [asdict(command) for command in commands]}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        codes = json.loads(self._process.stdout.readline())
        return [
            Done(code, *((self._folder / f"{kind}-{number}").read_text(encoding="utf-8") for kind in ("out", "err")))
            for number, code in enumerate(codes)
        ]

    def __call__(self, cwd: Path, *arguments: str, before: tuple[str, Any] | None = None) -> Done:
        """Run one command."""
        return self.together(Command(str(cwd), arguments, before))[0]

    def good(self, cwd: Path, *arguments: str) -> dict[str, Any]:
        """Run one command that must end well; return its result."""
        done = self(cwd, *arguments, "--json", "--quiet")
        assert done.code == 0, done
        return json.loads(done.stdout)  # type: ignore[no-any-return]


@contextmanager
def running_verbs(folder: Path) -> Iterator[Verbs]:
    """Start the process that imports everything; it ends with the block.

    Args:
        folder: an empty one, for what commands print.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "support.verbs"],
        env=unmeasured(environment()),  # its children end by os._exit, which writes no coverage
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Verbs(process, folder)
        finally:
            assert process.stdin is not None
            process.stdin.close()  # its end


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    importlib.import_module("ocrmem.console").quiet_libraries()  # they look at the environment once
    for name in IMPORTS:
        if importlib.util.find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    sys.stdout.flush()  # what libraries printed meanwhile is not for the children to print again
    for line in sys.stdin:
        request = json.loads(line)
        children = [_start(command, request["folder"], number) for number, command in enumerate(request["commands"])]
        answers.write(json.dumps(_wait(children)) + "\n")
        answers.flush()


def _start(command: dict[str, Any], folder: str, number: int) -> int:
    if child := os.fork():
        return child
    try:
        for descriptor, kind in enumerate(("out", "err"), start=1):
            file = os.open(f"{folder}/{kind}-{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(command["cwd"])
        os.environ |= command["environment"]
        if command["before"]:
            target, argument = command["before"]
            module, _, name = target.partition(":")
            getattr(importlib.import_module(module), name)(argument)
        _end(_verb(command["arguments"]))
    except BaseException:  # noqa: BLE001  # a child must not go on as its parent
        traceback.print_exc()
        _end(1)


def _verb(arguments: Sequence[str]) -> int:
    from ocrmem.cli import main as ocrmem

    try:
        return ocrmem(arguments)
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait(children: list[int]) -> list[int]:
    """Wait for all; when one was killed, the others follow it soon, as torchrun's agent sees to."""
    codes: dict[int, int] = {}
    end = time.monotonic() + LIMIT
    while len(codes) < len(children):
        for child in set(children) - codes.keys():
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                codes[child] = os.waitstatus_to_exitcode(status)
                if codes[child] < 0:
                    end = min(end, time.monotonic() + FOLLOW)
        if time.monotonic() > end:
            for child in set(children) - codes.keys():
                os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    return [codes[child] for child in children]


if __name__ == "__main__":
    main()
