"""``ocrmem render --preview N``: the first pages as PNG files, before a dataset is built; or pictures as pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TypedDict

from ocrmem.config import RenderSection, RunConfig
from ocrmem.conversations import Conversation, read_conversations, split_turns
from ocrmem.files import write_bytes
from ocrmem.rendering import Page, load_atlas, render_text, transcript

DIRECTORY = Path("preview")


class PreviewResult(TypedDict):
    """Result of `preview_dataset`; ``pages`` are paths."""

    pages: list[str]
    summary: list[str]


def preview_dataset(config: RunConfig, limit: int, directory: Path = DIRECTORY) -> PreviewResult:
    """Draw the longest history of each conversation and write the first ``limit`` pages.

    Args:
        config: sections render and data are used; no tokenizer and no model is needed.
        limit: pages in all.
        directory: gets page-000.png and so on.

    Raises:
        DataError: bad lines of data.
    """
    texts = filter(None, (_history(conversation, config) for conversation in read_conversations(config)))
    paths = write_preview(texts, directory, config.render, limit)
    return {
        "pages": [str(path) for path in paths],
        "summary": [f"preview: {len(paths)} pages of {config.render.page_size} px in {directory}/"],
    }


def preview_pictures(
    config: RunConfig, pictures: Sequence[str | Path], limit: int, directory: Path = DIRECTORY
) -> PreviewResult:
    """Write the pages that the first ``limit`` pictures become, see `read_picture`.

    Args:
        config: render.page_size is used.
        pictures: PNG and JPEG files.
        limit: pages in all.
        directory: as in `preview_dataset`.

    Raises:
        MissingInputError, DataError: a picture is not there, or none.
        ModuleNotFoundError: Pillow is not installed.
    """
    from ocrmem.rendering.picture import read_picture  # Pillow, which drawn pages do not need

    read = [read_picture(picture, config.render.page_size) for picture in pictures[:limit]]
    paths = _write((picture.page for picture in read), directory)
    return {
        "pages": [str(path) for path in paths],
        "summary": [f"{path}: {picture.name}, {picture.told}" for path, picture in zip(paths, read, strict=True)],
    }


def write_preview(texts: Iterable[str], directory: Path, settings: RenderSection, limit: int) -> list[Path]:
    """Write the first ``limit`` of all pages of some texts, each of which starts a page; replace existing files."""
    atlas = load_atlas(settings.atlas)
    pages = (page for text in texts for page in render_text(text, settings, atlas).pages)
    return _write(islice(pages, limit), directory)


def _write(pages: Iterable[Page], directory: Path) -> list[Path]:
    paths = []
    for number, page in enumerate(pages):
        paths.append(directory / f"page-{number:03d}.png")
        write_bytes(paths[-1], page.png())
    return paths


def _history(conversation: Conversation, config: RunConfig) -> str:
    turns = list(split_turns(conversation, config.data.recent_turns))
    return transcript(turns[-1].history, config.render.labels) if turns else ""
