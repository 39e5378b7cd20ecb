"""Settings of real models that load, to change one thing of."""

from __future__ import annotations

import json
from typing import Any

REAL: dict[str, Any] = {
    "model": {
        "base_model_name": "Qwen/Qwen3-8B",
        "ocr_model_name": "deepseek-ai/DeepSeek-OCR",
        "vision_embedding_size": 1024,
        "context_threshold": 1024,
        "max_seq_length": 4096,
    },
    "render": {"page_size": 1024, "token_size": 64, "line_height": 16, "max_pages": 8},
}


def real(**changes: Any) -> dict[str, Any]:
    """REAL with changes, as ``model__precision="float16"``."""
    values = json.loads(json.dumps(REAL))
    for name, value in changes.items():
        section, field = name.split("__")
        values.setdefault(section, {})[field] = value
    return values
