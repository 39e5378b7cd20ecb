"""Llama's architecture: Llama 3, and SmolLM2, the base model of configs/english.yaml.

Llama 3 has reserved tokens. SmolLM2's vocabulary keeps tokens of its pretraining on code and issues, which a chat does
not use. Llama 2 has neither. Sources: tokenizer.json of meta-llama/Llama-3.1-8B-Instruct and of
HuggingFaceTB/SmolLM2-135M-Instruct; config.json of the latter.
"""

from __future__ import annotations

import re
from typing import Any

from ocrmem.families.family import BRACKETS, Family, Marks

_NAME = re.compile(r"^huggingfacetb/smollm2-(?P<size>135m|360m|1\.7b)(-instruct)?$", re.I)
# hidden size, layers, heads, key-value heads, MLP size
_SIZES = {
    "135m": (576, 30, 9, 3, 1536),
    "360m": (960, 32, 15, 5, 2560),
    "1.7b": (2048, 24, 32, 32, 8192),
}


class Llama(Family):
    """Llama 3, SmolLM2 and others of their architecture."""

    marks = (
        Marks("<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<|reserved_special_token_2|>"),
        Marks("<issue_start>", "<empty_output>", "<issue_closed>"),
        BRACKETS,
    )
    head_norms = False

    def published(self, name: str) -> dict[str, Any] | None:
        match = _NAME.match(name)
        if match is None:
            return None
        hidden, layers, heads, kv_heads, inner = _SIZES[match["size"].lower()]
        return {
            "model_type": "llama",
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "intermediate_size": inner,
            "vocab_size": 49152,
            "tie_word_embeddings": True,
            "max_position_embeddings": 8192,
        }
