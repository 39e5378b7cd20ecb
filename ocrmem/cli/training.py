"""The verb ``train``: its options, and which way of training they ask for."""

from __future__ import annotations

import argparse
from typing import Any

from ocrmem.cli.verb import Arguments, function, run_config


def run(arguments: Arguments) -> dict[str, Any]:
    return function("ocrmem.training.train:train")(
        run_config(arguments), resume=arguments.resume, output=arguments.output
    )


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", action="store_true", help="go on from the newest complete checkpoint")
    parser.add_argument("--output", metavar="DIR", help="where the adapter goes (default: paths.adapter)")
