"""Rules over where verbs write: they replace their directories whole, so a shared one would be lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ocrmem.config.rules.rule import Fault, rule
from ocrmem.config.schema import PathsSection, RunSettings

# Several verbs write into paths.reports, file by file.
OUTPUTS = tuple(name for name in PathsSection.model_fields if name != "reports")
OUTPUT_FIELDS = tuple(f"paths.{name}" for name in OUTPUTS)


def output_directories(config: RunSettings) -> dict[str, Path]:
    """Return the absolute directory of each output, by its name in ``paths``."""
    return {name: absolute(getattr(config.paths, name)) for name in OUTPUTS}


def absolute(path: str) -> Path:
    return Path(os.path.realpath(path))  # unlike Path.resolve it does not mind a loop of links


@rule("data.path", *OUTPUT_FIELDS)
def outputs_do_not_overlap(config: RunSettings) -> Iterator[Fault]:
    outputs = output_directories(config)
    here, data = absolute("."), absolute(config.data.path)
    for name, path in outputs.items():
        field = f"paths.{name}"
        if here.is_relative_to(path):
            message = "is the working directory or one above it, and verbs replace it whole"
            yield field, message, "Name a folder of its own"
        elif data.is_relative_to(path):
            yield field, "holds data.path, and verbs replace it whole", "Name a folder of its own"
    names = list(outputs)
    for index, name in enumerate(names):
        for other in names[:index]:
            if outputs[name].is_relative_to(outputs[other]) or outputs[other].is_relative_to(outputs[name]):
                message = f"is the same as paths.{other}, or one lies in the other"
                yield f"paths.{name}", message, "Give each a folder of its own"
