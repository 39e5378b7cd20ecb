"""The command line: one sub-command a step of `ocrmem.steps`.

Exit codes: 0 done, 1 a check said no, 2 usage or configuration error, 75 training stopped with a checkpoint,
130 interrupted. Human output goes to stderr and the closing summary to stdout; with ``--json`` stdout holds one JSON
object and nothing else.
Nothing heavy is imported before the verb is known, so ``ocrmem --help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any, TextIO, cast

from ocrmem import __version__
from ocrmem.errors import ConfigError, OcrMemError
from ocrmem.extras import EXTRA_OF, not_installed
from ocrmem.steps import COMMANDS

INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """Make the whole parser; every command answers ``--help``."""
    parser = argparse.ArgumentParser(
        prog="ocrmem",
        description="Train, test, version and register an optical memory adapter.",
        epilog="Exit codes: 0 done, 1 a check said no, 2 usage or configuration error, 75 training stopped with a "
        "checkpoint (resume with --resume), 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"ocrmem {__version__}")
    commands = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, step in COMMANDS.items():
        command = commands.add_parser(name, help=step.help, description=step.help[0].upper() + step.help[1:] + ".")
        if step.takes_config:
            command.add_argument("--config", default="params.yaml", metavar="FILE", help="default: params.yaml")
            command.add_argument(
                "--set",
                action="append",
                default=[],
                metavar="KEY.PATH=VALUE",
                help="override a setting (repeatable)",
            )
        command.add_argument("--quiet", action="store_true", help="no progress bars and notes")
        command.add_argument("--json", action="store_true", help="one JSON object on stdout")
        if step.options:
            step.options(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    _open_closed_streams()
    _show_every_character(sys.stdout)
    with contextlib.redirect_stderr(cast("IO[str]", _Patient(sys.stderr))):
        try:
            arguments = build_parser().parse_args(argv)
        except SystemExit:  # --help and --version write to stdout too
            _print("", end="")
            raise
        from ocrmem.console import silenced

        with silenced(arguments.quiet):
            return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from ocrmem.console import console, quiet_libraries
    from ocrmem.files import disk_errors

    quiet_libraries()
    verb, step = f"ocrmem {arguments.verb}", COMMANDS[arguments.verb]
    # Libraries greet on stdout; that is the result's alone, unless there is somebody to talk to.
    talks = step.talks and not arguments.json
    try:
        with contextlib.nullcontext() if talks else contextlib.redirect_stdout(sys.stderr), disk_errors(verb):
            result = step.run(arguments)
    except OcrMemError as error:
        return _print_error(error, as_json=arguments.json)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRA_OF:
            raise
        return _print_error(not_installed(verb, module), as_json=arguments.json)
    except KeyboardInterrupt:
        console.quiet = False
        console.print(f"Interrupted. Run `{verb}` again: the result will be the same.")
        return INTERRUPTED
    failure = _print_result(result, as_json=arguments.json)
    # A reader that has gone (`| head`) has what it wanted.
    if failure is None or isinstance(failure, BrokenPipeError):
        return 0
    message = f"cannot be written ({failure.strerror}); what `{verb}` was to do is done"
    remedy = f"Send the output elsewhere and run `{verb}` again if you need it"
    return _print_error(ConfigError.of("stdout", message, remedy), as_json=False)


def _print_result(result: Mapping[str, Any], *, as_json: bool) -> OSError | None:
    if not result:  # one of several processes, whose result the first one prints
        return None
    if as_json:
        return _print_json({"ok": True} | {key: value for key, value in result.items() if key != "summary"})
    return _print("\n".join(result["summary"])) if result["summary"] else None


def _print_error(error: OcrMemError, *, as_json: bool) -> int:
    """Print the problems where they can be read, and return the exit code."""
    if not as_json or _print_json({"ok": False, "problems": [p.as_dict() for p in error.problems]}):
        from ocrmem.console import print_problems

        print_problems(error.problems)
    return error.exit_code


def _print_json(values: Mapping[str, Any]) -> OSError | None:
    text = json.dumps(values, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a console of few characters, or a file name of arbitrary bytes
        text = json.dumps(values)
    return _print(text)


def _print(text: str, end: str = "\n") -> OSError | None:
    """Print to stdout; return what kept it from being written."""
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        _discard(sys.stdout)
        return error
    return None


def _show_every_character(stream: TextIO) -> None:
    """Let a console of few characters show the others in escapes."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


class _Patient:
    """stderr, for notes and progress: a reader that has gone, or a full disk behind it, does not stop the work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            _discard(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            _discard(self._stream)


def _discard(stream: TextIO) -> None:
    """Send what a broken stream still holds, and all that follows, nowhere: Python would complain of it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _open_closed_streams() -> None:
    """Point streams that were closed from outside nowhere: files opened later would get their numbers and output."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # as long as the process
