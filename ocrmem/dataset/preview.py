"""``ocrmem render --preview N``: the first pages as PNG files, before a dataset is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ocrmem.config import RunConfig
from ocrmem.conversations import Conversation, read_conversations, split_turns
from ocrmem.rendering import transcript, write_preview

DIRECTORY = Path("preview")


def preview_dataset(config: RunConfig, limit: int, directory: Path = DIRECTORY) -> dict[str, Any]:
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


def _history(conversation: Conversation, config: RunConfig) -> str:
    turns = list(split_turns(conversation, config.data.recent_turns))
    return transcript(turns[-1].history, config.render.labels) if turns else ""
