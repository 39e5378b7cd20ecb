"""Facts that several layers share, each defined once: constants and small laws, with no heavy import."""

from __future__ import annotations

from ocrmem.errors import Problem

CELL_WIDTH, CELL_HEIGHT = 8, 16  # px of a half-width glyph
IGNORED = -100  # label of a token that the loss leaves out, as torch's cross entropy has it
LOGITS_AT_ONCE = 512  # supervised positions of a loss; with Qwen3-8B's vocabulary 0.9 GB of logits and their gradients
ADAPTER_FILES = ("adapter.safetensors", "config.json")  # what `train` writes into an adapter's directory
MODEL_CARD, PROVENANCE = "README.md", "provenance.json"  # what `register` adds to it
PACKAGE_FILES = (*ADAPTER_FILES, MODEL_CARD, PROVENANCE)
MANIFEST = "manifest.json"  # of a dataset, and of a feature store
PROJ = "proj"  # MEMModel's trained part, by its attribute's name
LORA = "lora"  # opens the names of LoRA's weights, where there are some
TRAIN_REPORT = "train.json"  # what `train` reports, below ``paths.reports``
SMOKE_REPORT = "report.json"  # what `smoke` reports, in ``paths.smoke``
RUN_ID = "OCRMEM_RUN_ID"  # environment variable: the pipeline run that a process belongs to


def tokens_per_page(page_size: int, token_size: int) -> int:
    """Return the vision tokens of a square page, blank ones included.

    Args:
        page_size: px of the page's side.
        token_size: px of the side of one vision token's patch.
    """
    return (page_size // token_size) ** 2


def page_problems(page_size: int, token_size: int, line_height: int) -> list[Problem]:
    """Return every fault of a page's sizes in px; none when cells, lines, tokens and page divide each other.

    A line must not cross the edge of a vision token, which would cut its glyphs in two.
    """
    faults = []
    if token_size % CELL_WIDTH or token_size < CELL_HEIGHT:
        message = f"is {token_size}, but glyphs need a multiple of {CELL_WIDTH} px of at least {CELL_HEIGHT}"
        faults.append(("token_size", message, "Use the encoder's patch size (64 for DeepSeek-OCR)"))
    if page_size % token_size:
        message = f"is {token_size}, which does not divide render.page_size {page_size}"
        faults.append(("token_size", message, "Choose sizes that divide, such as 64 and 512, 640, 1024 or 1280"))
    lines = [height for height in range(CELL_HEIGHT, min(token_size, 1024) + 1) if token_size % height == 0]
    remedy = f"Use {', '.join(map(str, lines)) or CELL_HEIGHT}"
    if line_height < CELL_HEIGHT:
        message = f"is {line_height}, less than a glyph's {CELL_HEIGHT} px"
        faults.append(("line_height", message, f"Use {CELL_HEIGHT} or more"))
    elif token_size % line_height:
        message = f"is {line_height}, which does not divide render.token_size {token_size}"
        faults.append(("line_height", f"{message}: lines would cross the edge of a vision token", remedy))
    elif page_size % line_height:
        faults.append(("line_height", f"is {line_height}, which does not divide the page", remedy))
    return [Problem(f"render.{field}", message, remedy) for field, message, remedy in faults]
