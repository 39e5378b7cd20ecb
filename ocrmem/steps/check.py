"""The step ``check``."""

from ocrmem.steps.step import Step

STEP = Step(
    name="check",
    help="check the dataset's quality with Great Expectations",
    group="dataset",
    example="ocrmem check --set check.max_compression_ratio=20",
    function="ocrmem.dataset.quality:check_dataset",
    page="check.md",
    reads=("dataset",),
    writes=("checks",),
    settings=("check",),
    is_stage=True,
    component="validate_dataset",
    cached=True,
)
