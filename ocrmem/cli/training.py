"""The verb ``train``: its options, and which way of training they ask for."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ocrmem.cli import cluster, planning
from ocrmem.cli.verb import Arguments, function, run_config


def run(arguments: Arguments) -> dict[str, Any]:
    planning.check(arguments)
    cluster.check(arguments)
    if arguments.deepspeed is not None:
        arguments.set = [*arguments.set, f"train.deepspeed={json.dumps(arguments.deepspeed)}"]
    if arguments.launcher == "kubernetes":
        return cluster.run(arguments)
    if arguments.nproc is not None:
        arguments.set = [*arguments.set, f"train.processes={_processes(arguments.nproc)}"]
    return planning.run(arguments) if arguments.plan else _train_here(arguments)


def _processes(nproc: str) -> int:
    from ocrmem.training.launch import nodes, processes_per_node

    return processes_per_node(nproc) * nodes()


def _train_here(arguments: Arguments) -> dict[str, Any]:
    from ocrmem.training.launch import is_wanted

    config = run_config(arguments)
    target = "ocrmem.training.launch:launch" if is_wanted(config) else "ocrmem.training.train:train"
    return function(target)(config, resume=arguments.resume, output=arguments.output)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nproc", metavar="N|auto", help="processes on this machine; sets train.processes")
    parser.add_argument("--deepspeed", metavar="zero1|zero2|zero3|FILE", help="sets train.deepspeed")
    parser.add_argument("--resume", action="store_true", help="go on from the newest complete checkpoint")
    parser.add_argument("--output", metavar="DIR", help="where the adapter goes (default: paths.adapter)")
    planning.options(parser)
    cluster.options(parser)
