"""Mistral: control tokens that nobody uses since version 3 of its tokenizer; ordinary text before.

Source: tokenizer.json of mistralai/Mistral-7B-Instruct-v0.3, whose first 771 tokens are control tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ocrmem.families.family import BRACKETS, Family, Marks, Shape


class Mistral(Family):
    """Mistral 7B and others of its architecture."""

    marks = (Marks("[control_768]", "[control_769]", "[control_770]"), BRACKETS)

    def shape(self, config: Mapping[str, Any]) -> Shape | None:
        return Shape.of(config, head_norms=False)
