"""The step ``chat``."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from ocrmem.steps.ask import memory_options
from ocrmem.steps.step import Arguments, Step, run_config_if_named


def _options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="text, Markdown, conversations or pictures to remember first"
    )
    memory_options(parser)


def _call(step: Step, arguments: Arguments) -> Mapping[str, Any]:
    return step.load()(arguments.files, arguments.adapter, config=run_config_if_named(arguments))


STEP = Step(
    name="chat",
    help="hold a conversation whose older turns become memory",
    group="memory",
    example="ocrmem chat notes.md",
    function="ocrmem.generation.chat:chat",
    page="ask.md",
    options=_options,
    call=_call,
    takes_config=False,
    talks=True,
    reads_named=("FILE",),
)
