"""The step ``encode``."""

from ocrmem.steps.step import Step

STEP = Step(
    name="encode",
    help="encode every page once into the feature store",
    function="ocrmem.encoder.encode:encode_dataset",
    page="encoder.md",
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
)
