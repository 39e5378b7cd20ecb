"""Qwen2 and Qwen2.5: Qwen3's marks and chat form, and attention without norms of its own."""

from __future__ import annotations

from ocrmem.families.family import Family


class Qwen2(Family):
    """Marks and tool calls are the defaults, as Qwen2's tokenizer and template have them."""

    head_norms = False
