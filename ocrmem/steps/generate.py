"""The step ``generate``."""

from argparse import ArgumentParser

from ocrmem.steps.step import Step


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--adapter", metavar="DIR|models:/NAME@ALIAS", help="the adapter (default: paths.adapter)")
    parser.add_argument(
        "--conversation",
        required=True,
        metavar="FILE",
        help="JSON or JSONL whose last user turn is answered; - is stdin",
    )


STEP = Step(
    name="generate",
    help="answer a conversation's last question from memory",
    group="memory",
    example="ocrmem generate --conversation question.json",
    function="ocrmem.generation.generate:generate",
    page="generate.md",
    options=_options,
    passes=("adapter", "conversation"),
    reads=("adapter", "models"),
    reads_named=("--conversation",),
)
