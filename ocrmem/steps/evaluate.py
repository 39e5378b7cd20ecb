"""The step ``evaluate``."""

from ocrmem.steps.step import Step

STEP = Step(
    name="evaluate",
    help="compare memory with its baselines on held-out conversations",
    group="release",
    example="ocrmem evaluate",
    function="ocrmem.evaluation.evaluate:evaluate",
    page="evaluate.md",
    reads=("adapter", "dataset", "features", "models"),
    writes=("evaluation.json", "evaluation.html"),
    settings=("evaluate",),
    other_settings=("train.seed", "train.stages", "train.max_steps", "train.transcribe_instruction"),
    is_stage=True,
    component="evaluate_adapter",
    cached=True,
    gpu=True,
)
