"""Where the weights that settings name are: what `ocrmem base` left under ``paths.models``, a directory, or the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ocrmem.boxed import boxed_encoder
from ocrmem.config.known_encoders import ENGLISH
from ocrmem.errors import MissingInputError
from ocrmem.families import TINY
from ocrmem.json_files import ModelSource, read_json

Part = Literal["base", "encoder"]
SOURCE = "source.json"  # beside weights that `ocrmem base` fetched: whose they are, and from where


def locate(name: str, models: Path | str, part: Part, revision: str | None = None) -> str:
    """Return where a model loads from: ``models``/``part`` if `ocrmem base` made or fetched it there, else ``name``.

    The encoder `english` is in the box, unless `ocrmem base --teach` made another one here.

    Args:
        name: as in the settings: `tiny`, a hub name or a directory.
        models: ``paths.models``.
        revision: commit of a hub name.

    Raises:
        MissingInputError: the tiny preset has not been built.
    """
    directory = Path(models) / part
    if not left_by_base(name, models, part, revision):
        return str(boxed_encoder()) if (part, name) == ("encoder", ENGLISH) else name
    if not (directory / "config.json").is_file():
        raise MissingInputError.of(str(directory), f"the tiny {part} is not there", "Run `ocrmem base` first")
    return str(directory)


def left_by_base(name: str, models: Path | str, part: Part, revision: str | None = None) -> bool:
    """Tell whether a model is one that `ocrmem base` makes, or has fetched at this revision, under ``models``."""
    if name == TINY:
        return True
    try:
        source = read_json(Path(models) / part / SOURCE, ModelSource, made_by="base")
    except MissingInputError:  # `ocrmem base` writes the directory again
        return False
    return (source["name"], source["revision"]) == (name, revision)
