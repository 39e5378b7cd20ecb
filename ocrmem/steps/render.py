"""The step ``render``."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from pathlib import Path

from ocrmem.errors import UsageError
from ocrmem.steps.step import Arguments, Step, load, positive, run_config

_PREVIEWED = 4
_PICTURES = (".png", ".jpg", ".jpeg")


def _number_or_picture(text: str) -> int | str:
    """Read the word behind ``--preview``, which may be the first of the pictures."""
    if Path(text).suffix.lower() in _PICTURES:
        return text
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a number, nor a PNG or JPEG file")
    return positive(text)


def _options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "pictures", nargs="*", metavar="PICTURE", help="with --preview: PNG or JPEG files as pages, instead of the data"
    )
    parser.add_argument(
        "--preview",
        type=_number_or_picture,
        nargs="?",
        const=_PREVIEWED,
        metavar="N",
        help=f"show N conversations (default {_PREVIEWED}) or pictures beside their pages, in preview/index.html",
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out bad lines (see rejects.jsonl)")


def _render(step: Step, arguments: Arguments) -> Mapping[str, object]:
    if arguments.skip_bad:
        arguments.set = [*arguments.set, "data.skip_bad=true"]
    if arguments.pictures and not arguments.preview:
        message = "takes pictures to show them as pages, not into a dataset"
        raise UsageError.of("render", message, "Add --preview, or leave them out")
    config = run_config(arguments)
    if isinstance(arguments.preview, str):
        arguments.pictures, arguments.preview = [arguments.preview, *arguments.pictures], _PREVIEWED
    if arguments.pictures:
        return load("ocrmem.dataset.preview:preview_pictures")(config, arguments.pictures, arguments.preview)
    if arguments.preview:
        return load("ocrmem.dataset.preview:preview_dataset")(config, arguments.preview)
    return step.call_with(config)


STEP = Step(
    name="render",
    help="draw conversations on pages and write the dataset",
    group="dataset",
    example="ocrmem render --preview 4",
    function="ocrmem.dataset.build:build_dataset",
    page="rendering.md",
    options=_options,
    call=_render,
    reads=("data",),
    writes=("dataset",),
    keeps=("preview",),
    after=("validate",),
    settings=(
        "render",
        "data",
        "model.base_model_name",
        "model.base_revision",
        "model.context_threshold",
        "model.max_seq_length",
        "model.drop_blank_tokens",
    ),
    is_stage=True,
    component="render_dataset",
    cached=True,
)
