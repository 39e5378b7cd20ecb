"""Rules over the pages, and the memory that they become in the sequence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ocrmem.config.known_encoders import known_encoder
from ocrmem.config.rules.rule import Fault, rule
from ocrmem.config.schema import RunSettings
from ocrmem.facts import CELL_WIDTH, page_problems, tokens_per_page
from ocrmem.families import MARK_TOKENS

TEXT_TOKENS = 16  # the least that a question, its answer and the chat template take


@rule("model.ocr_model_name", "render.page_size", "render.token_size")
def pages_are_the_encoders(config: RunSettings) -> Iterator[Fault]:
    name, render = config.model.ocr_model_name, config.render
    encoder = known_encoder(name)
    if encoder and encoder.page_sizes and render.page_size not in encoder.page_sizes:
        message = f"is {render.page_size}, which is not one of {name}'s own sizes; pages are never resampled"
        yield "render.page_size", message, f"Use {', '.join(map(str, encoder.page_sizes))}"
    if encoder and encoder.token_size not in (None, render.token_size):
        message = f"is {render.token_size}, but a vision token of {name} sees {encoder.token_size} px"
        yield "render.token_size", message, f"Set it to {encoder.token_size}"


@rule("render.page_size", "render.token_size", "render.line_height")
def page_token_and_line_divide(config: RunSettings) -> Iterator[Fault]:
    render = config.render
    for problem in page_problems(render.page_size, render.token_size, render.line_height):
        yield problem.place, problem.message, problem.remedy


@rule("render.page_size", "render.tab_width")
def tabs_fit_the_page(config: RunSettings) -> Iterator[Fault]:
    if config.render.tab_width * CELL_WIDTH >= config.render.page_size:
        yield "render.tab_width", f"is {config.render.tab_width}, wider than a page", "Use 4 or 8"


@rule("render.atlas")
def atlas_is_there(config: RunSettings) -> Iterator[Fault]:
    atlas = config.render.atlas
    if atlas != "unifont" and not Path(atlas).is_file():
        yield "render.atlas", f"is {atlas!r}, which is not a file", "Use unifont, or the path of a .ttf or .otf"


@rule("render.page_size", "render.token_size", "render.max_pages", "model.max_seq_length")
def memory_fits_the_sequence(config: RunSettings) -> Iterator[Fault]:
    render, longest = config.render, config.model.max_seq_length
    tokens = tokens_per_page(render.page_size, render.token_size)
    needed = render.max_pages * tokens + MARK_TOKENS
    if tokens and needed + TEXT_TOKENS > longest:
        pages = (longest - MARK_TOKENS - TEXT_TOKENS) // tokens
        lower = f"Lower it to {pages} or less, or raise" if pages > 0 else "Raise"
        yield (
            "render.max_pages",
            f"is {render.max_pages}: with up to {tokens} tokens a page and the marks around them memory takes "
            f"{needed} tokens, which leaves too little of model.max_seq_length {longest} for any text",
            f"{lower} model.max_seq_length to at least {needed + TEXT_TOKENS} (better, with room for the recent turns)",
        )
