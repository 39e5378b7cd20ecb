"""A workspace as `register` finds it, written by hand: no model, no training, milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.page_dataset import write_page_dataset

from ocrmem.config import RunConfig
from ocrmem.evaluation.result import VARIANTS
from ocrmem.files import write_bytes, write_json
from ocrmem.json_files import with_sha256
from ocrmem.package import adapter_sha256

MEMORY_CONFIG = {
    "model_type": "ocrmem",
    "base_model_name": "tiny",
    "base_revision": None,
    "ocr_model_name": "tiny",
    "ocr_revision": None,
    "features": "sum",
    "vision_embedding_size": 32,
    "page_size": 256,
    "token_size": 32,
    "line_height": 32,
    "context_threshold": 8,
}


def finished_run(root: Path, *, weights: bytes = b"weights", recall: float = 0.9, **sections: Any) -> RunConfig:
    """adapter/, dataset/manifest.json, evaluation.json, smoke/report.json and train.json under ``root``."""
    values = {
        "register": {"uri": f"sqlite:///{root / 'registry' / 'mlflow.db'}", "gate": {"min_recall": 0.5}},
        "tracking": {"wandb": "disabled"},
        "paths": {name: str(root / name) for name in ("adapter", "dataset", "smoke", "reports", "features", "models")},
    }
    for section, changes in sections.items():
        values[section] = {**values.get(section, {}), **changes}
    config = RunConfig.model_validate(values)  # sizes do not matter here
    write_bytes(root / "adapter" / "adapter.safetensors", weights)
    write_json(root / "adapter" / "config.json", MEMORY_CONFIG)
    write_page_dataset(root / "dataset", [])
    write_json(root / "smoke" / "report.json", with_sha256({"ok": True}))
    digest = adapter_sha256(root / "adapter")
    write_json(config.paths.report("train.json"), with_sha256({"adapter_sha256": digest}))
    evaluation = {name: {"loss": 2.0, "recall": 0.1} for name in VARIANTS}
    evaluation["memory"] = {"loss": 0.5, "recall": recall}
    write_json(
        config.paths.report("evaluation.json"),
        with_sha256(
            {
                "adapter_sha256": digest,
                "samples": {"evaluated": 40},
                **evaluation,
                "compression_ratio": 1.25,
                "latency": {"memory": {"total": 0.1}},
            }
        ),
    )
    return config


def change_json(path: Path, **changes: Any) -> None:
    """Set fields of a JSON file; one that covers itself gets the hash of what it then says."""
    value = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    write_json(path, with_sha256(value) if "sha256" in value else value)
