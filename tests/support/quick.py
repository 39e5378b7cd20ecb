"""Settings with which the whole main job takes seconds: nothing is learnt, and the gate accepts that."""

from __future__ import annotations

from typing import Any

QUICK: dict[str, dict[str, Any]] = {
    "base": {"encoder_steps": 4, "lm_steps": 4, "text_recall": 0.0},
    "train": {
        "max_steps": 4,
        "per_device_batch_size": 8,
        "warmup_steps": 0,
        "save_steps": 4,
        "logging_steps": 1,
    },
    "evaluate": {"max_samples": 4, "examples": 1},
    # Recall of such a model is 0 whatever it is shown, which this gate accepts.
    "register": {
        "gate": {"min_recall": 0.0, "max_shuffled_recall": 0.0, "max_no_memory_recall": 0.0, "min_loss_gain": -1e9}
    },
}
