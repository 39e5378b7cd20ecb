"""The step ``base``."""

from argparse import ArgumentParser

from ocrmem.steps.step import Step


def _options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--verify-encoder",
        action="store_true",
        help="also compare a page's features with those of the package deepseek-ocr-encoder",
    )


STEP = Step(
    name="base",
    help="build the tiny language model and encoder, or check that the named ones load",
    function="ocrmem.model.base:build_base",
    page="tiny.md",
    options=_options,
    passes=("verify_encoder",),
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
