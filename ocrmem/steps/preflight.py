"""The step ``preflight``."""

from argparse import ArgumentParser

from ocrmem.steps.step import EVERYTHING, Step


def _options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--launcher",
        choices=("local", "kubernetes", "none"),
        default="local",
        help="where training will run (default: local); none: check neither this machine nor the cluster",
    )


STEP = Step(
    name="preflight",
    help="check keys, registry, remotes, models, disk and cluster before requesting a GPU",
    group="training",
    example="ocrmem preflight --config configs/qwen3-8b-8gpu.yaml",
    function="ocrmem.readiness:preflight",
    page="preflight.md",
    options=_options,
    passes=("launcher",),
    settings=(EVERYTHING,),
    component="preflight",
    network=True,
)
