"""Gemma, Gemma 2 and the text models of Gemma 3: image marks since Gemma 3, unused tokens before.

Sources: tokenizer.json of google/gemma-3-1b-it and google/gemma-2b-it. `ocrmem train --plan` has no arithmetic for
them: Gemma 2 and 3 keep a window of the attention in some layers, and norms behind each block.
"""

from __future__ import annotations

from ocrmem.families.family import Family, Marks


class Gemma(Family):
    """Three generations share this file; their model types differ."""

    marks = (
        Marks("<start_of_image>", "<image_soft_token>", "<end_of_image>"),
        Marks("<unused0>", "<unused1>", "<unused2>"),
    )
