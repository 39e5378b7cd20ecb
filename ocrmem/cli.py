"""The command line: one sub-command a step of `ocrmem.steps`.

Exit codes: 0 done, 1 a check said no, 2 usage or configuration error, 75 training stopped with a checkpoint,
130 interrupted. Human output goes to stderr and the closing summary to stdout; with ``--json`` stdout holds one JSON
object and nothing else.
Nothing heavy is imported before the verb is known, so ``ocrmem --help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ocrmem import __version__
from ocrmem.errors import OcrMemError
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
    arguments = build_parser().parse_args(argv)
    from ocrmem.console import console, quiet_libraries, set_quiet

    quiet_libraries()
    set_quiet(arguments.quiet)
    try:
        # Libraries greet on stdout; that is the result's alone.
        with contextlib.redirect_stdout(sys.stderr):
            result = COMMANDS[arguments.verb].run(arguments)
        _print_result(result, as_json=arguments.json)
        return 0
    except OcrMemError as error:
        _print_error(error, as_json=arguments.json)
        return error.exit_code
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRA_OF:
            raise
        missing = not_installed(f"ocrmem {arguments.verb}", module)
        _print_error(missing, as_json=arguments.json)
        return missing.exit_code
    except KeyboardInterrupt:
        console.quiet = False
        console.print(f"Interrupted. Run `ocrmem {arguments.verb}` again: the result will be the same.")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout has gone (`| head`); Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _print_result(result: Mapping[str, Any], *, as_json: bool) -> None:
    if not result:  # one of several processes, whose result the first one prints
        return
    if as_json:
        values = {key: value for key, value in result.items() if key != "summary"}
        print(json.dumps({"ok": True, **values}, ensure_ascii=False))
    else:
        print("\n".join(result["summary"]))
    sys.stdout.flush()


def _print_error(error: OcrMemError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"ok": False, "problems": [p.as_dict() for p in error.problems]}, ensure_ascii=False))
    else:
        from ocrmem.console import print_problems

        print_problems(error.problems)
