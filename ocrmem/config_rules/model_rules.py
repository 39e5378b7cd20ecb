"""Rules over the model, the encoder, the pages and the sequence that joins them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from pathlib import Path

from ocrmem.config import TINY, PathsSection, RunConfig
from ocrmem.config_rules.known import known_encoder
from ocrmem.config_rules.rule import Fault, Rules
from ocrmem.facts import tokens_per_page
from ocrmem.families import EXAMPLE, known_positions

CELL = 16  # px, the height of a glyph and twice its width
TEXT_TOKENS = 16  # the least that a question, its answer and the chat template take

rule = Rules()

_TEXTS = (
    "model.base_model_name",
    "model.ocr_model_name",
    "data.path",
    "register_.name",
    "register_.uri",
    "register_.alias",
    "tracking.project",
    "render.atlas",
    *(f"paths.{name}" for name in PathsSection.model_fields),
)


def _get(config: RunConfig, name: str) -> object:
    return reduce(getattr, name.split("."), config)


def _required(name: str) -> None:
    @rule(name)
    def is_given(config: RunConfig) -> Iterator[Fault]:
        value = str(_get(config, name))
        if not value.strip():
            yield name, "is empty", _WHAT_TO_NAME.get(name, "Give it a value, or leave it out")
        elif not value.isprintable():
            yield name, "has unprintable characters", "Remove them"


_WHAT_TO_NAME = {
    "model.base_model_name": f"Name the base model: tiny, a hub name such as {EXAMPLE}, or a directory",
    "model.ocr_model_name": "Name the encoder: tiny, a hub name as deepseek-ai/DeepSeek-OCR, or a directory",
    "data.path": "Name a .jsonl file or a directory of them",
}
for _name in _TEXTS:
    _required(_name)


@rule("model.base_model_name", "model.ocr_model_name")
def tiny_goes_with_tiny(config: RunConfig) -> Iterator[Fault]:
    names = (config.model.base_model_name, config.model.ocr_model_name)
    if (names[0] == TINY) != (names[1] == TINY) and all(name.strip() for name in names):
        field = "model.ocr_model_name" if names[0] == TINY else "model.base_model_name"
        message = f"is {names[names[0] == TINY]!r}, but the other of the two models is tiny"
        yield field, message, "Name two real models, or tiny for both"


@rule("model.context_threshold", "model.max_seq_length")
def threshold_is_below_the_sequence(config: RunConfig) -> Iterator[Fault]:
    threshold, longest = config.model.context_threshold, config.model.max_seq_length
    if threshold >= longest:
        yield (
            "model.context_threshold",
            f"is {threshold}, not below model.max_seq_length {longest}: only a history longer than the "
            "threshold becomes memory, and text that long is cut to fit the sequence first, so no history "
            "could ever become memory and proj would never be trained",
            f"Lower it well below {longest}, for example to {max(longest // 4, 1)}, or raise model.max_seq_length",
        )


@rule("model.ocr_model_name", "model.features", "model.vision_embedding_size")
def vision_size_is_the_encoders(config: RunConfig) -> Iterator[Fault]:
    encoder = known_encoder(config.model.ocr_model_name)
    if encoder is None:
        return
    given, gives = config.model.vision_embedding_size, encoder.sizes[config.model.features]
    if given != gives:
        yield (
            "model.vision_embedding_size",
            f"is {given}, but {config.model.ocr_model_name} with features {config.model.features!r} gives "
            f"{gives}: the first page would fail on a shape",
            f"Set it to {gives}",
        )


@rule("model.ocr_model_name", "render.page_size", "render.token_size")
def pages_are_the_encoders(config: RunConfig) -> Iterator[Fault]:
    encoder, render = known_encoder(config.model.ocr_model_name), config.render
    if encoder and encoder.page_sizes and render.page_size not in encoder.page_sizes:
        sizes = ", ".join(map(str, encoder.page_sizes))
        yield (
            "render.page_size",
            f"is {render.page_size}, which is none of {config.model.ocr_model_name}'s own sizes; pages are "
            "never resampled",
            f"Use {sizes}",
        )
    if encoder and encoder.token_size not in (None, render.token_size):
        yield (
            "render.token_size",
            f"is {render.token_size}, but a vision token of {config.model.ocr_model_name} sees {encoder.token_size} px",
            f"Set it to {encoder.token_size}",
        )
    elif render.page_size % render.token_size:
        yield (
            "render.token_size",
            f"is {render.token_size}, which does not divide render.page_size {render.page_size}",
            "Choose sizes that divide",
        )


@rule("render.page_size", "render.token_size", "render.line_height", "render.tab_width")
def lines_lie_on_tokens(config: RunConfig) -> Iterator[Fault]:
    render = config.render
    height = render.line_height
    if height < CELL:
        yield "render.line_height", f"is {height}, less than a glyph's {CELL} px", f"Use {CELL} or more"
    elif render.token_size % height:
        yield (
            "render.line_height",
            f"is {height}, which does not divide render.token_size {render.token_size}: lines would cross "
            "the edge of a vision token",
            f"Use {_divisors(render.token_size)}",
        )
    elif render.page_size % height:
        remedy = f"Use {_divisors(render.token_size)}"
        yield "render.line_height", f"is {height}, which does not divide the page", remedy
    if render.tab_width * CELL // 2 >= render.page_size:
        yield "render.tab_width", f"is {render.tab_width}, wider than a page", "Use 4 or 8"


def _divisors(size: int) -> str:
    return ", ".join(str(n) for n in range(CELL, size + 1) if size % n == 0) or str(CELL)


@rule("render.atlas")
def atlas_is_there(config: RunConfig) -> Iterator[Fault]:
    atlas = config.render.atlas
    if atlas.strip() and atlas != "unifont" and not Path(atlas).is_file():
        yield "render.atlas", f"is {atlas!r}, which is no file", "Use unifont, or the path of a .ttf or .otf"


@rule("render.page_size", "render.token_size", "render.max_pages", "model.max_seq_length")
def memory_fits_the_sequence(config: RunConfig) -> Iterator[Fault]:
    render, longest = config.render, config.model.max_seq_length
    tokens = tokens_per_page(render.page_size, render.token_size)
    needed = render.max_pages * tokens + 2
    if tokens and needed + TEXT_TOKENS > longest:
        pages = (longest - 2 - TEXT_TOKENS) // tokens
        lower = f"Lower it to {pages} or less, or raise" if pages > 0 else "Raise"
        enough = needed + TEXT_TOKENS
        yield (
            "render.max_pages",
            f"is {render.max_pages}: with up to {tokens} tokens a page and two around them memory takes "
            f"{needed} tokens, which leaves too little of model.max_seq_length {longest} for any text",
            f"{lower} model.max_seq_length to at least {enough} (better, with room for the recent turns)",
        )


@rule("model.base_model_name", "model.max_seq_length", "evaluate.max_new_tokens")
def sequence_fits_the_base_model(config: RunConfig) -> Iterator[Fault]:
    positions = known_positions(config.model.base_model_name)
    longest, new = config.model.max_seq_length, config.evaluate.max_new_tokens
    if positions is not None and longest + new > positions:
        yield (
            "model.max_seq_length",
            f"is {longest}, which with evaluate.max_new_tokens {new} is more than the {positions} positions "
            f"of {config.model.base_model_name}",
            f"Lower it to {max(positions - new, 1)} or less",
        )


@rule("model.device", "model.precision")
def precision_suits_the_device(config: RunConfig) -> Iterator[Fault]:
    if config.model.device == "cpu" and config.model.precision == "float16":
        yield "model.precision", "is float16, in which training on a CPU overflows", "Use float32 or bfloat16"
