"""The step ``ask``."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from ocrmem.steps.step import Arguments, Step, run_config_if_named


def memory_options(parser: ArgumentParser) -> None:
    """Add the options of ``ask`` and ``chat`` that say who answers."""
    parser.add_argument(
        "--adapter",
        metavar="NAME|DIR|models:/NAME@ALIAS",
        help="the adapter (default: english; with --config, its paths.adapter)",
    )
    parser.add_argument("--config", metavar="FILE", help="the settings of a run; default: those of the adapter")


def _options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="text, Markdown, conversations or pictures (PNG, JPEG); - is stdin"
    )
    parser.add_argument(
        "--question", dest="questions", action="append", required=True, metavar="TEXT", help="what to ask (repeatable)"
    )
    parser.add_argument(
        "--compare", action="store_true", help="also answer from the full text, from as many tokens of it, from nothing"
    )
    memory_options(parser)


def _call(step: Step, arguments: Arguments) -> Mapping[str, Any]:
    return step.load()(
        arguments.files,
        arguments.questions,
        arguments.adapter,
        compare=arguments.compare,
        config=run_config_if_named(arguments),
    )


STEP = Step(
    name="ask",
    help="answer questions about files from memory",
    group="memory",
    example='ocrmem ask notes.md --question "When is the train?"',
    function="ocrmem.generation.ask:ask",
    page="ask.md",
    options=_options,
    call=_call,
    takes_config=False,
    reads_named=("FILE",),
)
