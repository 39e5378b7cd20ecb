"""A small workspace as `evaluate` and `generate` find it: random models, an adapter never trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.models import small_workspace

from ocrmem.config import RunConfig
from ocrmem.encoder.feature_store import FeatureStore
from ocrmem.files import write_json
from ocrmem.json_files import with_sha256
from ocrmem.model.modeling import MEMModel


def workspace_with_adapter(root: Path, **sections: Any) -> RunConfig:
    """Data, models, dataset, features, an adapter as `train` leaves it, and a smoke report under ``root``."""
    sections["model"] = {"features": "sum"} | sections.get("model", {})  # what the small encoder gives
    config = small_workspace(root, **sections)
    model = MEMModel.from_run_config(config, with_encoder=False)
    store = FeatureStore.open(config.paths.features)
    model.set_feature_statistics(store.mean, store.std)
    model.save_pretrained(config.paths.adapter)
    write_json(Path(config.paths.smoke) / "report.json", with_sha256({"ok": True}))
    return config
