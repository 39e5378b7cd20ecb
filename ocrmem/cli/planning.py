"""The option ``train --plan`` and those that go with it alone."""

from __future__ import annotations

import argparse
from typing import Any

from ocrmem.cli.verb import Arguments, function, positive, run_config
from ocrmem.errors import ConfigError, Problem

_WITH_PLAN = ("gpu", "hours", "mfu", "answer_tokens")
_NOT_WITH_PLAN = ("resume", "output", "dry_run", "run_name")


def options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("planning", "With --plan nothing is loaded, trained or written.")
    group.add_argument("--plan", action="store_true", help="show memory, tokens, operations and time instead")
    group.add_argument("--gpu", metavar="NAME", help="h100, h200, a100-80, a100-40, l40s, l4, rtx4090 ... or cpu")
    group.add_argument("--hours", type=float, metavar="H", help="wall time to reach: which rate does it take?")
    group.add_argument("--mfu", type=float, metavar="X", help="share of the peak rate that is reached (default 0.35)")
    group.add_argument("--answer-tokens", type=positive, metavar="N", help="of a sample (default: the dataset's)")


def check(arguments: Arguments) -> None:
    """Refuse options that mean nothing together.

    Raises:
        ConfigError: naming each of them.
    """
    wrong = _NOT_WITH_PLAN if arguments.plan else _WITH_PLAN
    message = "means nothing with --plan, which runs nothing" if arguments.plan else "is for --plan alone"
    remedy = "Leave it out" if arguments.plan else "Add --plan, or leave it out"
    given = [name for name in wrong if getattr(arguments, name) not in (None, False)]
    if arguments.plan and arguments.launcher != "local":
        given.append("launcher")
    if given:
        raise ConfigError([Problem(f"--{name.replace('_', '-')}", message, remedy) for name in given])


def run(arguments: Arguments) -> dict[str, Any]:
    config = run_config(arguments)  # before the import, which takes seconds: its faults are told at once
    return function("ocrmem.planning.plan:plan")(
        config,
        gpu=arguments.gpu,
        hours=arguments.hours,
        mfu=arguments.mfu,
        answer_tokens=arguments.answer_tokens,
    )
