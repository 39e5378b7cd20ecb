"""The step ``base``."""

from argparse import ArgumentParser

from ocrmem.steps.step import Step


def _options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--teach", action="store_true", help="teach the encoder english here, in place of the one in the box"
    )
    parser.add_argument(
        "--verify-encoder",
        action="store_true",
        help="also compare a page's features with those of the package deepseek-ocr-encoder",
    )


STEP = Step(
    name="base",
    help="build the tiny language model and encoder, or fetch and load the named ones",
    group="dataset",
    example="ocrmem base",
    function="ocrmem.model.base:build_base",
    page="tiny.md",
    options=_options,
    passes=("teach", "verify_encoder"),
    writes=("models",),
    settings=(
        "base",
        "model.base_model_name",
        "model.base_revision",
        "model.ocr_model_name",
        "model.ocr_revision",
    ),
    is_stage=True,
    component="build_base",
    cached=True,
    network=True,  # a hub, for real names
)
