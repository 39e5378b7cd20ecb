"""The step ``smoke``."""

from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path

from ocrmem.steps.step import Arguments, Step, load, run_config


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--model", metavar="MODULE:FUNCTION", help="check your own: FUNCTION() returns (model, batch)")
    parser.add_argument(
        "--trainable", nargs="+", default=["proj"], metavar="PATH", help="with --model: the parts that should train"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("smoke"), metavar="DIR", help="with --model: where the reports go"
    )


def _smoke(step: Step, arguments: Arguments) -> Mapping[str, object]:
    if arguments.model is None:
        config = run_config(arguments)
        return step.call_with(config)
    return load("ocrmem.smoke_test:smoke_model")(arguments.model, arguments.trainable, arguments.output)


# What the batches of a run's objectives and their losses are made of.
_OBJECTIVES = (
    "max_steps", "transcribe_instruction", "continue_instruction",
    "distil_top_k", "distil_kl_weight", "distil_nll_weight",
)  # fmt: skip

STEP = Step(
    name="smoke",
    help="show on a few samples that gradients reach proj and nothing else",
    group="training",
    example="ocrmem smoke --model my_model:build --trainable proj",
    function="ocrmem.smoke_test:smoke",
    page="smoke.md",
    options=_options,
    call=_smoke,
    reads=("dataset", "features", "models"),
    writes=("smoke",),
    settings=("model", "smoke", "train.stages", "train.lora"),
    other_settings=("train.seed", "train.packing", *(f"train.{name}" for name in _OBJECTIVES)),
    is_stage=True,
    component="smoke_test",
    cached=True,
    gpu=True,
)
