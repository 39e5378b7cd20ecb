"""The command line: one sub-command a step of `ocrmem.steps`, besides `help` and `completion`.

Human output goes to stderr and the closing summary to stdout; with ``--json`` stdout holds one JSON object and nothing
else. Exit codes: `ocrmem.errors.Exit`.
Nothing heavy is imported before the verb is known, so ``ocrmem --help`` answers at once.
"""

from ocrmem.cli.parser import build_parser
from ocrmem.cli.run import main

__all__ = ["build_parser", "main"]
