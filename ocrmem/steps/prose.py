"""The step ``prose``."""

from argparse import ArgumentParser
from pathlib import Path

from ocrmem.steps.step import Step, positive


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for prose-SEED.jsonl")
    parser.add_argument("--count", type=positive, default=1000, help="texts (default 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--words", type=positive, default=120, help="words of a text, about (default 120)")


STEP = Step(
    name="prose",
    help="let the base model write texts to learn reading from",
    group="conversations",
    example="ocrmem prose --output texts --count 100",
    function="ocrmem.generation.prose:prose",
    page="conversations.md",
    options=_options,
    passes=("output", "count", "seed", "words"),
    reads=("models",),
    gpu=True,
    writes_named=("--output",),
)
