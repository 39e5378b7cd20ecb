"""The step ``base``."""

from ocrmem.steps.step import Step

STEP = Step(
    name="base",
    help="build the tiny language model and encoder, or check that the named ones load",
    function="ocrmem.model.base:build_base",
    page="tiny.md",
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
