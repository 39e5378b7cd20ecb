"""The step ``encode``."""

from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path

from ocrmem.errors import UsageError
from ocrmem.steps.step import Arguments, Step, load, run_config


def _options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "pictures", nargs="*", metavar="PICTURE", help="PNG or JPEG files to encode instead of the dataset"
    )
    parser.add_argument(
        "--nproc",
        metavar="N|auto",
        default="1",
        help="processes that encode, each on a GPU; auto: all GPUs (default: 1)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the features of pictures go (safetensors)")


def _encode(step: Step, arguments: Arguments) -> Mapping[str, object]:
    if bool(arguments.pictures) != bool(arguments.output):
        message = "takes pictures and the file for their features together"
        raise UsageError.of("encode", message, "Write `ocrmem encode PICTURE ... --output FILE`, or neither")
    if arguments.pictures and arguments.nproc != "1":
        raise UsageError.of("--nproc", "does not count for pictures", "Leave it out")
    config = run_config(arguments)
    if arguments.pictures:
        return load("ocrmem.encoder.encode_pictures:encode_pictures")(config, arguments.pictures, arguments.output)
    return step.call_with(config, processes=load("ocrmem.encoder.device:processes_per_node")(arguments.nproc))


STEP = Step(
    name="encode",
    help="encode every page once into the feature store",
    group="dataset",
    example="ocrmem encode scan.png --output scan.safetensors",
    function="ocrmem.encoder.encode:encode_dataset",
    page="encoder.md",
    options=_options,
    call=_encode,
    reads=("dataset", "models"),
    writes=("features",),
    settings=(
        "model.ocr_model_name",
        "model.ocr_revision",
        "model.encoder",
        "model.features",
        "model.vision_embedding_size",
        "model.precision",
    ),
    is_stage=True,
    component="encode_pages",
    cached=True,
    gpu=True,
    reads_named=("PICTURE",),
    writes_named=("--output",),
)
