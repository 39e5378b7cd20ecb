"""The step ``import-adapter``."""

from argparse import ArgumentParser
from pathlib import Path

from ocrmem.steps.step import Step


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="DIR", help="holds projection_layer.pt, or checkpoints")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the adapter goes")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a field of config.json, as in base_model_name=Qwen/Qwen3-8B (repeatable)",
    )


STEP = Step(
    name="import-adapter",
    help="turn what OCR-MEM left into an adapter",
    group="training",
    example="ocrmem import-adapter old --output adapter",
    function="ocrmem.model.importing:import_adapter",
    page="model.md",
    options=_options,
    passes=("source", "output", "overrides"),
    takes_config=False,
    reads_named=("DIR",),
    writes_named=("--output",),
)
