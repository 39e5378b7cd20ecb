"""The step ``import-adapter``."""

from argparse import ArgumentParser
from pathlib import Path

from ocrmem.steps.step import Step


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="DIR", help="folder with projection_layer.pt and config.json")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the adapter goes")


STEP = Step(
    name="import-adapter",
    help="turn an OCR-MEM projection_layer.pt into an adapter",
    function="ocrmem.model.importing:import_adapter",
    page="model.md",
    options=_options,
    passes=("source", "output"),
    takes_config=False,
)
