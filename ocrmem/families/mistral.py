"""Mistral: control tokens that nobody uses since version 3 of its tokenizer; ordinary text before.

Source: tokenizer.json of mistralai/Mistral-7B-Instruct-v0.3, whose first 771 tokens are control tokens.
"""

from __future__ import annotations

from ocrmem.families.family import BRACKETS, Family, Marks


class Mistral(Family):
    """Mistral 7B and others of its architecture."""

    marks = (Marks("[control_768]", "[control_769]", "[control_770]"), BRACKETS)
    head_norms = False
