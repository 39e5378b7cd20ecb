"""The options of ``train`` that hand the run to a Kubernetes cluster."""

from __future__ import annotations

import argparse
from typing import Any

from ocrmem.cli.verb import Arguments, function, run_config
from ocrmem.errors import ConfigError, Problem

# What says the same for a cluster.
_ONLY_HERE = {"nproc": "kubernetes.nodes and kubernetes.gpus_per_node", "output": "kubernetes.volumes.output"}


def options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("Kubernetes", "docs/kubernetes.md; where and with what is in `kubernetes:`.")
    group.add_argument(
        "--launcher",
        choices=("local", "kubernetes"),
        default="local",
        help="train here (default), or in a Kubeflow TrainJob",
    )
    group.add_argument("--run-name", metavar="NAME", help="of the TrainJob and its folder; the same name attaches")
    group.add_argument("--dry-run", action="store_true", help="print the TrainJob and call nothing")


def check(arguments: Arguments) -> None:
    """Refuse options that mean nothing together.

    Raises:
        ConfigError: naming each of them.
    """
    problems = []
    if arguments.launcher == "local":
        for name in ("run_name", "dry_run"):
            if getattr(arguments, name):
                option = f"--{name.replace('_', '-')}"
                problems.append(
                    Problem(option, "is for a run on Kubernetes", "Add --launcher kubernetes, or leave it out")
                )
    else:
        for name, settings in _ONLY_HERE.items():
            if getattr(arguments, name, None):
                message = "is for a run on this machine, and means nothing with --launcher kubernetes"
                problems.append(Problem(f"--{name}", message, f"Leave it out, and set {settings}"))
    if problems:
        raise ConfigError(problems)


def run(arguments: Arguments) -> dict[str, Any]:
    config = run_config(arguments)  # before the import, which takes seconds: its faults are told at once
    return function("ocrmem.cluster.trainjob:train_on_cluster")(
        config, run_name=arguments.run_name, resume=arguments.resume, dry_run=arguments.dry_run
    )
