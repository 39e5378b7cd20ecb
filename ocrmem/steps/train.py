"""The step ``train``: in this process, on several, or in a Kubernetes cluster; with ``--plan``, what it would take."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Mapping

from ocrmem.errors import Problem, UsageError
from ocrmem.steps.step import Arguments, Step, load, positive, run_config

_WITH_PLAN = ("gpu", "hours", "mfu", "answer_tokens", "price_per_gpu_hour")
_NOT_WITH_PLAN = ("resume", "output", "dry_run", "run_name")
_ON_KUBERNETES = ("run_name", "dry_run")
# Options of a run on this machine, and the settings that say the same for a cluster.
_ONLY_HERE = {"nproc": "kubernetes.nodes and kubernetes.gpus_per_node", "output": "kubernetes.volumes.output"}


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--nproc", metavar="N|auto", help="processes on this machine; sets train.processes")
    parser.add_argument("--deepspeed", metavar="zero1|zero2|zero3|FILE", help="sets train.deepspeed")
    parser.add_argument("--from-adapter", metavar="DIR", help="begin with this adapter; sets train.from_adapter")
    parser.add_argument("--resume", action="store_true", help="resume from the newest complete checkpoint")
    parser.add_argument("--output", metavar="DIR", help="where the adapter goes (default: paths.adapter)")

    group = parser.add_argument_group("planning", "With --plan nothing is loaded, trained or written.")
    group.add_argument("--plan", action="store_true", help="show memory, tokens, operations and time instead")
    group.add_argument("--gpu", metavar="NAME", help="h100, h200, a100-80, a100-40, l40s, l4, rtx4090 ... or cpu")
    group.add_argument("--hours", type=float, metavar="H", help="wall time to reach: which rate does it take?")
    group.add_argument("--mfu", type=float, metavar="X", help="share of the peak rate that is reached")
    group.add_argument("--answer-tokens", type=positive, metavar="N", help="of a sample (default: the dataset's)")

    group.add_argument("--price-per-gpu-hour", type=float, metavar="X", help="what it costs: X times its GPU hours")

    group = parser.add_argument_group("Kubernetes", "docs/kubernetes.md; where and with what is in `kubernetes:`.")
    group.add_argument(
        "--launcher",
        choices=("local", "kubernetes"),
        default="local",
        help="train here (default), or in a Kubeflow TrainJob",
    )
    group.add_argument("--run-name", metavar="NAME", help="of the TrainJob and its folder; the same name attaches")
    group.add_argument("--dry-run", action="store_true", help="print the TrainJob and call nothing")


def _train(step: Step, arguments: Arguments) -> Mapping[str, object]:
    _refuse_what_does_not_fit(arguments)
    for name in ("deepspeed", "from_adapter"):
        if (value := getattr(arguments, name)) is not None:
            arguments.set = [*arguments.set, f"train.{name}={json.dumps(value)}"]
    if arguments.nproc == "auto" and load("ocrmem.training.launch:is_placed")():
        load("ocrmem.training.launch:check_placement")(run_config(arguments))
    elif arguments.nproc is not None:
        count = (
            load("ocrmem.encoder.device:processes_per_node")(arguments.nproc) * load("ocrmem.training.launch:nodes")()
        )
        arguments.set = [*arguments.set, f"train.processes={count}"]
    config = run_config(arguments)
    if arguments.plan:
        return load("ocrmem.planning.plan:plan")(config, **{name: getattr(arguments, name) for name in _WITH_PLAN})
    if arguments.dry_run:
        return load("ocrmem.cluster.dry_run:dry_run")(config, run_name=arguments.run_name)
    if arguments.launcher == "kubernetes":
        return load("ocrmem.cluster.trainjob:train_on_cluster")(
            config, run_name=arguments.run_name, resume=arguments.resume
        )
    return step.load()(config, resume=arguments.resume, output=arguments.output)


def _refuse_what_does_not_fit(arguments: Arguments) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: naming each of them.
    """

    def given(names: Mapping[str, object] | tuple[str, ...]) -> list[str]:
        return [name for name in names if getattr(arguments, name) not in (None, False)]

    here = arguments.launcher == "local"
    if arguments.plan:
        wrong = [*given(_NOT_WITH_PLAN), *(() if here else ("launcher",))]
        found = [(name, "means nothing with --plan, which runs nothing", "Leave it out") for name in wrong]
    else:
        found = [(name, "is for --plan alone", "Add --plan, or leave it out") for name in given(_WITH_PLAN)]
    if not found and here:
        remedy = "Add --launcher kubernetes, or leave it out"
        found = [(name, "is for a run on Kubernetes", remedy) for name in given(_ON_KUBERNETES)]
    elif not found:
        message = "is for a run on this machine, and means nothing with --launcher kubernetes"
        found = [(name, message, f"Leave it out, and set {_ONLY_HERE[name]}") for name in given(_ONLY_HERE)]
    if found:
        raise UsageError([Problem(f"--{name.replace('_', '-')}", what, remedy) for name, what, remedy in found])


STEP = Step(
    name="train",
    help="train proj",
    group="training",
    example="ocrmem train --plan --gpu h100 --price-per-gpu-hour 2.5",
    function="ocrmem.training.launch:train_or_launch",
    page="train.md",
    options=_options,
    call=_train,
    reads=("dataset", "features", "models"),
    writes=("adapter", "train.json", "plots"),
    keeps=("checkpoints", "wandb", "trainjob.json"),
    after=("check", "smoke"),
    settings=("model", "train"),
    other_settings=("tracking", "kubernetes"),
    is_stage=True,
    component="train_adapter",
    network=True,  # tracking, and after a preemption it resumes
    gpu=True,
    reads_named=("--from-adapter",),
)
