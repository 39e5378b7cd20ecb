"""The tiny preset: Qwen3's architecture, marks and template form at 120 thousand parameters, made by `ocrmem base`."""

from __future__ import annotations

from typing import Any

from ocrmem.families.qwen3 import Qwen3

TINY = "tiny"
POSITIONS = 512  # short enough to learn on two CPU cores, and room for two pages


class Tiny(Qwen3):
    """Known by its name; its config.json says qwen3."""

    def published(self, name: str) -> dict[str, Any] | None:
        return {"model_type": "qwen3", "max_position_embeddings": POSITIONS} if name == TINY else None
