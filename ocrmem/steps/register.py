"""The step ``register``."""

from argparse import ArgumentParser

from ocrmem.steps.step import EVERYTHING, Step


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--run-id", metavar="ID", help="of the pipeline run, written on a new version")


STEP = Step(
    name="register",
    help="package the adapter, register it, move the alias if the gate holds and it is better",
    group="release",
    example="ocrmem register",
    function="ocrmem.registry:register",
    page="register.md",
    options=_options,
    passes=("run_id",),
    reads=("adapter", "evaluation.json", "smoke"),
    writes=("registration.json",),
    keeps=("registry",),
    settings=("register",),
    other_settings=(EVERYTHING,),  # the package records them
    is_stage=True,
    component="register_adapter",
    network=True,
)
