"""The step ``pipeline``: run one on this machine, compile the files, submit one to a cluster, list what there is."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocrmem.errors import UsageError
from ocrmem.steps.step import Arguments, Step, load


def _options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    local = _action(actions, "run", "run a compiled pipeline on this machine")
    local.add_argument("name", metavar="NAME")
    local.add_argument("--local", action="store_true", help="in processes on this machine; `submit` is for a cluster")
    _settings(local)
    local.add_argument("--output", type=Path, default=Path("runs"), metavar="DIR", help="where runs go (default: runs)")
    local.add_argument("--resume", metavar="RUN", help="continue a run in --output that was stopped")
    local.add_argument("--cache", action="store_true", help="use again what earlier runs in --output have made")

    make = _action(actions, "compile", "write NAME.yaml from NAME.py")
    make.add_argument("name", nargs="?", metavar="NAME", help="default: all")
    make.add_argument("--settings", type=Path, metavar="FILE", help="compile-time settings, see docs/pipelines.md")
    make.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="one of them (repeatable)")
    make.add_argument(
        "--output", type=Path, metavar="FILE", help="with NAME: the file to write (default: beside NAME.py)"
    )

    submit = _action(actions, "submit", "start a run in a cluster")
    submit.add_argument("name", metavar="NAME|FILE", help="a pipeline, or the path of a compiled file")
    submit.add_argument("--endpoint", metavar="URL", help="Kubeflow Pipelines' API (default: $KF_PIPELINES_ENDPOINT)")
    _settings(submit)
    submit.add_argument("--experiment", default="ocrmem", metavar="E", help="default: ocrmem")
    submit.add_argument("--run-name", metavar="N", help="default: the pipeline's name and the time")
    submit.add_argument("--namespace", metavar="NS", help="of a multi-user Kubeflow (default: none)")
    submit.add_argument("--service-account", metavar="SA", help="of the pods (default: the installation's)")
    submit.add_argument("--no-cache", action="store_true", help="run every task, whatever has been run before")
    submit.add_argument("--wait", action="store_true", help="until the run has ended; exit code 1 if it failed")

    _action(actions, "list", "name the compiled pipelines and their parameters")


def _action(actions: Any, name: str, help_: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
    parser.add_argument(
        "--directory", type=Path, default=Path("pipelines"), metavar="DIR", help="the pipelines (default: pipelines)"
    )
    # SUPPRESS: what was given before the action stands.
    parser.add_argument("--quiet", action="store_true", default=argparse.SUPPRESS, help="no notes")
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object on stdout")
    return parser


def _settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default="params.yaml", metavar="FILE", help="default: params.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="override a setting (repeatable)"
    )
    parser.add_argument(
        "--param", action="append", default=[], metavar="NAME=VALUE", help="another parameter of the pipeline"
    )


def _run(arguments: Arguments) -> Mapping[str, Any]:
    if not arguments.local:
        raise UsageError.of(
            "pipeline run", "runs on this machine only", "Add --local, or use `ocrmem pipeline submit` for a cluster"
        )
    package, values = _with_values(arguments)
    return load("ocrmem.workflow.local:run_locally")(
        package, values, arguments.output, cache=arguments.cache, resume=arguments.resume
    )


def _compile(arguments: Arguments) -> Mapping[str, Any]:
    return load("ocrmem.workflow.compiling:compile_pipelines")(
        arguments.name,
        settings=arguments.settings,
        overrides=arguments.set,
        directory=arguments.directory,
        output=arguments.output,
    )


def _submit(arguments: Arguments) -> Mapping[str, Any]:
    package, values = _with_values(arguments)
    return load("ocrmem.workflow.submitting:submit")(
        package,
        values,
        endpoint=arguments.endpoint,
        experiment=arguments.experiment,
        run_name=arguments.run_name,
        namespace=arguments.namespace,
        service_account=arguments.service_account,
        use_cache=not arguments.no_cache,
        wait=arguments.wait,
    )


def _list(arguments: Arguments) -> Mapping[str, Any]:
    return load("ocrmem.workflow.compiled:list_pipelines")(arguments.directory)


def _with_values(arguments: Arguments) -> tuple[Any, dict[str, Any]]:
    """Return the compiled pipeline and the values of its parameters."""
    package = load("ocrmem.workflow.compiled:open_package")(arguments.name, arguments.directory)
    return package, package.run_values(Path(arguments.config), arguments.set, arguments.param)


_ACTIONS = {"run": _run, "compile": _compile, "submit": _submit, "list": _list}

STEP = Step(
    name="pipeline",
    help="run, compile, submit or list the Kubeflow pipelines",
    group="pipelines",
    example="ocrmem pipeline run adapter_training --local",
    function="",
    page="pipelines.md",
    options=_options,
    call=lambda step, arguments: _ACTIONS[arguments.action](arguments),
    takes_config=False,
    keeps=("runs",),
    reads_named=("--directory", "--config"),
    writes_named=("--output",),
)
