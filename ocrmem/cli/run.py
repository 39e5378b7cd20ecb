"""Run one command: its result on stdout, what is said besides on stderr, and its exit code."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any, cast

from ocrmem.cli.completion import SCRIPTS
from ocrmem.cli.parser import Parser, build_parser
from ocrmem.cli.streams import Patient, open_closed_streams, print_out, show_every_character
from ocrmem.errors import ConfigError, Exit, OcrMemError, UsageError
from ocrmem.extras import EXTRA_OF, not_installed
from ocrmem.steps import COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code, one of `Exit`."""
    given = sys.argv[1:] if argv is None else list(argv)
    open_closed_streams()
    show_every_character(sys.stdout)
    with contextlib.redirect_stderr(cast("IO[str]", Patient(sys.stderr))):
        parser = build_parser()
        try:
            arguments = parser.parse_args(given)
            if arguments.verb is None:
                parser.parse_args(["--help"])
            if arguments.verb == "help":
                parser.parse_args([*arguments.topic, "--help"])
        except UsageError as error:
            return _print_error(error, as_json="--json" in given, usage=error.usage)
        except SystemExit:  # --help and --version write to stdout too
            print_out("", end="")
            raise
        if arguments.verb == "completion":
            script = SCRIPTS[arguments.shell](parser)
            return _printed({"script": script, "summary": [script]}, arguments)
        from ocrmem.console import silenced

        with silenced(arguments.quiet):
            return _run(parser, arguments)


def _run(parser: Parser, arguments: argparse.Namespace) -> int:
    from ocrmem.console import console, quiet_libraries
    from ocrmem.files import disk_errors

    quiet_libraries()
    verb, step = f"ocrmem {arguments.verb}", COMMANDS[arguments.verb]
    # Libraries greet on stdout; that is the result's alone, unless there is somebody to talk to.
    talks = step.talks and not arguments.json
    try:
        with contextlib.nullcontext() if talks else contextlib.redirect_stdout(sys.stderr), disk_errors(verb):
            result = step.run(arguments)
    except UsageError as error:
        usage = parser.usage_of(arguments.verb)
        return _print_error(error, as_json=arguments.json, usage=usage)
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
        return Exit.INTERRUPTED
    return _printed(result, arguments)


def _printed(result: Mapping[str, Any], arguments: argparse.Namespace) -> int:
    """Print a result; return the exit code."""
    failure = _print_result(result, as_json=arguments.json)
    # A reader that has gone (`| head`) has what it wanted.
    if failure is None or isinstance(failure, BrokenPipeError):
        return Exit.DONE
    verb = f"ocrmem {arguments.verb}"
    message = f"cannot be written ({failure.strerror}); what `{verb}` was to do is done"
    remedy = f"Send the output elsewhere and run `{verb}` again if you need it"
    return _print_error(ConfigError.of("stdout", message, remedy), as_json=False)


def _print_result(result: Mapping[str, Any], *, as_json: bool) -> OSError | None:
    if not result:  # one of several processes, whose result the first one prints
        return None
    if as_json:
        return _print_json({"ok": True} | {key: value for key, value in result.items() if key != "summary"})
    return print_out("\n".join(result["summary"])) if result["summary"] else None


def _print_error(error: OcrMemError, *, as_json: bool, usage: str = "") -> int:
    """Print the problems where they can be read, and return the exit code."""
    if usage and not as_json:
        print(usage, end="", file=sys.stderr)
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
    return print_out(text)
