"""The step ``convert``."""

from argparse import ArgumentParser
from pathlib import Path

from ocrmem.steps.step import Step, positive

_FORMS = "chatgpt, claude, responses, anthropic, sharegpt, openai, locomo, rounds, alpaca, prompt"


def _options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="JSON, JSONL or parquet, also with gzip or in UTF-16"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new folder for the JSONL files")
    parser.add_argument("--from", dest="form", metavar="FORM", help=f"one of {_FORMS}; default: told from the content")
    parser.add_argument(
        "--map",
        dest="columns",
        metavar="FIELD=NAME,...",
        help="the files' names for prompt, completion, input, history, system, messages, id",
    )
    parser.add_argument(
        "--join", type=positive, default=1, metavar="N", help="make one conversation of N that follow each other"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="keep what is no conversation in left-out/rejects.jsonl, and go on"
    )


STEP = Step(
    name="convert",
    help="turn conversations of other forms into JSONL",
    group="conversations",
    example="ocrmem convert export.json --output converted",
    function="ocrmem.conversion:convert",
    page="convert.md",
    options=_options,
    passes=("files", "output", "form", "columns", "join", "skip_bad"),
    takes_config=False,
    reads_named=("FILE",),
    writes_named=("--output",),
)
