"""Markdown for Kubeflow Pipelines' page of a task: lines and tables.

The UI renders Markdown with HTML in it, so text from data, settings and errors is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from ocrmem.files import write_text
from ocrmem.workflow.task import Artifact

_MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\`*_[]|~#"})


def escaped(text: object) -> str:
    """Return one line of plain text as it may stand anywhere in Markdown."""
    return html.escape(" ".join(str(text).split()), quote=False).translate(_MARKDOWN)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *([escaped(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def write_page(artifact: Artifact, title: str, *blocks: Sequence[str]) -> None:
    """Write a Markdown artifact: a title, then blocks of lines that are Markdown already."""
    text = "\n\n".join([f"# {escaped(title)}", *("\n".join(block) for block in blocks if block)])
    write_text(Path(artifact.path), text + "\n")


def bullets(lines: Iterable[str]) -> list[str]:
    """Return lines of plain text as a Markdown list."""
    return [f"- {escaped(line)}" for line in lines if line.strip()]
