"""The frozen OCR encoder and the store of what it made of every page. Names load lazily: torch is heavy."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "DeepEncoder": "deepencoder",
    "load_encoder": "deepencoder",
    "WrappedEncoder": "wrapped",
    "FeatureStore": "features",
    "encode_dataset": "encode",
    "encode_pages": "pages",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
