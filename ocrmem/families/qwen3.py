"""Qwen3, 0.6B to 32B: its vocabulary holds Qwen-VL's vision tokens, which mark memory here.

Sources: config.json of Qwen/Qwen3-0.6B ... Qwen/Qwen3-32B; -Base and -2507 have the same shapes. With
``enable_thinking=False`` the chat template writes an empty think block in front of the answer.
"""

from __future__ import annotations

import re
from typing import Any

from ocrmem.families.family import Family

IMAGE_PAD_ID = 151655  # of <|image_pad|>
_NAME = re.compile(r"^qwen/qwen3-(?P<size>0\.6|1\.7|4|8|14|32)b(?P<kind>-base|-[a-z]+-2507)?$", re.I)
# hidden size, layers, heads, key-value heads, MLP size, tied embeddings
_SIZES = {
    "0.6": (1024, 28, 16, 8, 3072, True),
    "1.7": (2048, 28, 16, 8, 6144, True),
    "4": (2560, 36, 32, 8, 9728, True),
    "8": (4096, 36, 32, 8, 12288, False),
    "14": (5120, 40, 40, 8, 17408, False),
    "32": (5120, 64, 64, 8, 25600, False),
}
_POSITIONS = {"": 40960, "-base": 32768}  # -2507: 262144


class Qwen3(Family):
    """The defaults are Qwen3's: marks, the switch against thinking, and tool calls as its template writes them."""

    head_norms = True

    def published(self, name: str) -> dict[str, Any] | None:
        match = _NAME.match(name)
        if match is None:
            return None
        hidden, layers, heads, kv_heads, inner, tied = _SIZES[match["size"]]
        return {
            "model_type": "qwen3",
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": 128,
            "intermediate_size": inner,
            "vocab_size": 151936,
            "tie_word_embeddings": tied,
            "max_position_embeddings": _POSITIONS.get((match["kind"] or "").lower(), 262144),
        }
