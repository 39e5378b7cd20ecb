"""The parser of the command line, made from `ocrmem.steps`; what it cannot read is a `UsageError` with the nearest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from ocrmem import __version__
from ocrmem.cli.completion import SCRIPTS
from ocrmem.errors import Exit, UsageError
from ocrmem.steps import COMMANDS, GROUPS, Step

# Verbs of the command line itself, which are no steps.
OWN = {
    "help": "show the verbs, or a verb's options",
    "completion": "print the script by which a shell completes verbs and options",
}


class Parser(argparse.ArgumentParser):
    """argparse's, but what it cannot read raises a `UsageError` of the verb itself, naming the nearest that exists."""

    nested: argparse._SubParsersAction[Parser] | None = None

    def add_subparsers(self, **kwargs: Any) -> argparse._SubParsersAction[Parser]:  # type: ignore[override]
        self.nested = super().add_subparsers(**kwargs)
        return self.nested

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        given = sys.argv[1:] if args is None else list(args)
        known = self._option_string_actions
        for name in self._own_options(given):
            if not any(option.startswith(name) for option in known):
                words = [option.lstrip("-") for option in known]
                self._refuse(f"has no option {name}", [f"--{word}" for word in _near(name[2:], words)])
        found, left = super().parse_known_args(given, namespace)
        if left:
            self.error(f"does not take {' '.join(left)}")
        return found, left

    def _own_options(self, given: Sequence[str]) -> Iterator[str]:
        """Yield the options of a command line that this parser reads, not those after the verb."""
        for word in given:
            if word == "--" or (self.nested and not word.startswith("-")):
                return
            if word.startswith("--") and " " not in word:
                yield word.partition("=")[0]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            what = "/".join(action.option_strings) or action.metavar or action.dest
            near = _near(str(value), choices)
            self._refuse(f"{what} cannot be {value!r}" + ("" if near else f", only {', '.join(choices)}"), near)

    def usage_of(self, verb: str) -> str:
        """Return how a verb is used."""
        return "" if self.nested is None else self.nested.choices[verb].format_usage()

    def error(self, message: str) -> NoReturn:
        self._refuse(message, [])

    def _refuse(self, message: str, near: Sequence[str]) -> NoReturn:
        meant = f"Did you mean {near[0]}? " if near else ""
        error = UsageError.of(self.prog, message, f"{meant}See `{self.prog} --help`")
        error.usage = self.format_usage()
        raise error


def _near(word: str, known: Sequence[str]) -> list[str]:
    return get_close_matches(word, known, 1, cutoff=0.65)


def build_parser() -> Parser:
    """Make the whole parser; every command answers ``--help``."""
    parser = Parser(
        prog="ocrmem",
        usage="ocrmem VERB [options]",
        description="Train, test, version and register an optical memory adapter.\n\n" + "\n".join(_by_purpose()),
        epilog="exit codes:\n" + "\n".join(f"  {code.value:<4} {code.meaning}" for code in Exit),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ocrmem {__version__}")
    _common(parser, default=False)
    verbs = parser.add_subparsers(prog="ocrmem", dest="verb", metavar="VERB", help=argparse.SUPPRESS)
    for name, step in COMMANDS.items():
        command = _verb(verbs, name, step.help, _facts(step))
        if step.takes_config:
            command.add_argument("--config", default="params.yaml", metavar="FILE", help="default: params.yaml")
            command.add_argument(
                "--set",
                action="append",
                default=[],
                metavar="KEY.PATH=VALUE",
                help="override a setting (repeatable)",
            )
        if step.options:
            step.options(command)
    shown = _verb(verbs, "help", OWN["help"], [("example", "ocrmem help pipeline run")])
    shown.add_argument("topic", nargs="*", metavar="VERB")
    example = "ocrmem completion bash > ~/.local/share/bash-completion/completions/ocrmem"
    completion = _verb(verbs, "completion", OWN["completion"], [("example", example), ("docs", "docs/cli.md")])
    completion.add_argument("shell", choices=tuple(SCRIPTS))
    return parser


def _verb(verbs: Any, name: str, help_: str, facts: Sequence[tuple[str, str]]) -> Parser:
    command: Parser = verbs.add_parser(
        name,
        help=help_,
        description=help_[0].upper() + help_[1:] + ".",
        epilog="\n".join(f"{title + ':':<9} {text}" for title, text in facts),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # SUPPRESS: what was given before the verb stands.
    _common(command, default=argparse.SUPPRESS)
    return command


def _common(parser: Parser, default: Any) -> None:
    parser.add_argument("--quiet", action="store_true", default=default, help="no progress bars and notes")
    parser.add_argument("--json", action="store_true", default=default, help="one JSON object on stdout")


def _by_purpose() -> Iterator[str]:
    """Yield the verbs under what they are for."""
    groups = {
        title: {name: step.help for name, step in COMMANDS.items() if step.group == group}
        for group, title in GROUPS.items()
    }
    width = max(map(len, COMMANDS))
    for title, verbs in {**groups, "help": OWN}.items():
        yield f"{title}:"
        yield from (f"    {name:<{width}}  {help_}" for name, help_ in verbs.items())
        yield ""
    yield "`ocrmem help VERB` shows a verb's options, an example, what it reads and writes."


def _facts(step: Step) -> list[tuple[str, str]]:
    found = [
        ("reads", ", ".join([*(["params.yaml"] if step.takes_config else []), *step.reads, *step.reads_named])),
        ("writes", ", ".join([*step.writes, *step.writes_named])),
        ("example", step.example),
        ("docs", f"docs/{step.page}"),
    ]
    return [(title, text or "nothing") for title, text in found]
