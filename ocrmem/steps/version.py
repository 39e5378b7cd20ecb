"""The step ``version``."""

from argparse import ArgumentParser
from collections.abc import Mapping

from ocrmem.errors import UsageError
from ocrmem.steps.step import Arguments, Step, load, run_config


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--open", metavar="HASH", help="fetch the dataset of this hash instead of pushing")
    parser.add_argument("--output", metavar="DIR", help="with --open: where to (default: paths.dataset)")


def _version(step: Step, arguments: Arguments) -> Mapping[str, object]:
    config = run_config(arguments)
    if arguments.open is not None:
        return load("ocrmem.versioning:open_dataset")(config, arguments.open, arguments.output)
    if arguments.output is not None:
        raise UsageError.of("--output", "is for --open", "Add --open HASH, or leave it out")
    return step.call_with(config)


STEP = Step(
    name="version",
    help="push the dataset to the DVC remote, or open it again by its hash",
    group="dataset",
    example="ocrmem version --set version.remote=/mnt/remote",
    function="ocrmem.versioning:version_dataset",
    page="version.md",
    options=_options,
    call=_version,
    reads=("dataset",),
    writes=("version.json", "version"),
    settings=("version",),
    component="version_dataset",
    network=True,
)
