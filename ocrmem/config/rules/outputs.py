"""Rules over where verbs write: they replace their directories whole, so a shared one would be lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from ocrmem.config.rules.rule import Fault, rule
from ocrmem.config.schema import PathsSection, RunSettings

# Several verbs write into paths.reports, file by file.
OUTPUT_FIELDS = tuple(f"paths.{name}" for name in PathsSection.model_fields if name != "reports")


def output_directories(config: RunSettings) -> dict[str, Path]:
    """Return the absolute directory of each output, by its field."""
    return {field: absolute(getattr(config.paths, field.removeprefix("paths."))) for field in OUTPUT_FIELDS}


def absolute(path: str) -> Path:
    return Path(os.path.realpath(path))  # unlike Path.resolve it does not mind a loop of links


@rule("data.path", *OUTPUT_FIELDS)
def outputs_do_not_overlap(config: RunSettings) -> Iterator[Fault]:
    outputs = output_directories(config)
    here, data = absolute("."), absolute(config.data.path)
    for field, path in outputs.items():
        if here.is_relative_to(path):
            message = "is the working directory or one above it, and verbs replace it whole"
            yield field, message, "Name a folder of its own"
        elif data.is_relative_to(path):
            yield field, "holds data.path, and verbs replace it whole", "Name a folder of its own"
    for (other, outer), (field, path) in combinations(outputs.items(), 2):
        if path.is_relative_to(outer) or outer.is_relative_to(path):
            yield field, f"is the same as {other}, or one lies in the other", "Give each a folder of its own"
