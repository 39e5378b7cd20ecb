"""The step ``synth``."""

from argparse import ArgumentParser
from pathlib import Path

from ocrmem.steps.step import Step, positive


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the JSONL files")
    parser.add_argument("--style", choices=("tiny", "en", "en-plain", "zh", "mixed"), default="mixed")
    parser.add_argument("--count", type=positive, default=100, help="training conversations (default 100)")
    parser.add_argument("--eval-count", type=positive, default=20, help="held-out conversations (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--facts", type=positive, help="facts of a conversation (default 8 in en, else 5)")
    parser.add_argument("--words", type=positive, help="en: words of a conversation's notes (default 120, en-plain 25)")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="en-plain: kinds of facts; a wrong one lists them")


STEP = Step(
    name="synth",
    help="write seeded recall conversations",
    group="conversations",
    example="ocrmem synth --output data --style en --count 200",
    function="ocrmem.synthetic.synth:synth",
    page="conversations.md",
    options=_options,
    passes=("output", "style", "count", "eval_count", "seed", "facts", "words", "kinds"),
    takes_config=False,
    writes_named=("--output",),
)
