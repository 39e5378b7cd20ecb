"""Adapters that come with ocrmem, each a registry package in a directory of its name."""

from __future__ import annotations

from pathlib import Path

from ocrmem.errors import ConfigError

ENGLISH = "english"  # what answers where no adapter is named
_BOX = Path(__file__).parent


def boxed_encoder() -> Path:
    """Return the directory of the encoder in the box, which `ocrmem base --teach` made."""
    return _BOX / ENGLISH / "encoder"


def boxed_names() -> list[str]:
    """Return the names of the adapters in the box."""
    return sorted(config.parent.name for config in _BOX.glob("*/config.json"))


def boxed(name: str) -> Path:
    """Return the directory of an adapter in the box.

    Raises:
        ConfigError: there is none of this name.
    """
    names = boxed_names()
    if name not in names:
        remedy = "Name an adapter's directory, or models:/NAME@ALIAS"
        raise ConfigError.of(
            "--adapter", f"{name!r} is not in the box, which holds {', '.join(names) or 'none'}", remedy
        )
    return _BOX / name
