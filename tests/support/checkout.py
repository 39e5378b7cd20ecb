"""A folder in which the commands of the docs run in seconds: like a checkout, with small random models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.models import small_settings, write_conversations, write_random_base

from ocrmem import boxed
from ocrmem.config import RunConfig
from ocrmem.model.modeling import MEMModel

ROOT = Path(__file__).resolve().parents[2]
# What the English preset has and a run of few steps cannot have.
_SETTINGS: dict[str, dict[str, Any]] = {
    "model": {"context_threshold": 0, "max_seq_length": 512},
    "train": {"max_steps": 2, "warmup_steps": 0, "save_steps": 1, "per_device_batch_size": 2},
    "evaluate": {"max_samples": 4, "max_new_tokens": 4},
    "smoke": {"samples": 2},
    "tracking": {"wandb": "disabled"},
}


def small_checkout(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill ``root`` and go there.

    The adapter in the box is one that was never trained, for models in ``root``/small; configs/english.yaml names these
    too. params.yaml, data/, models/ and adapter/ are as `make demo` leaves them.
    """
    monkeypatch.chdir(root)
    write_random_base(root / "small")
    names = {"base_model_name": str(root / "small" / "base"), "ocr_model_name": str(root / "small" / "encoder")}
    english = small_settings(root, **(_SETTINGS | {"model": _SETTINGS["model"] | names}))
    paths, demo_data = english.pop("paths"), english["data"]
    english |= {"data": {"path": "data", "workers": 1}, "register": {"name": "ocrmem-english"}}
    box = root / "ocrmem" / "boxed"
    MEMModel.from_run_config(RunConfig.from_dict(english), with_encoder=False).save_pretrained(box / "english")
    monkeypatch.setattr(boxed, "_BOX", box)
    (root / "configs").mkdir()
    for preset in (ROOT / "configs").glob("*.yaml"):
        (root / "configs" / preset.name).symlink_to(preset)
    (root / "configs" / "english.yaml").unlink()
    write_yaml(root / "configs" / "english.yaml", english)

    demo = english | {"paths": paths, "data": demo_data}
    write_yaml(root / "params.yaml", demo)
    write_conversations(root / "data", train=6, held_out=3)
    MEMModel.from_run_config(RunConfig.from_dict(demo), with_encoder=False).save_pretrained(root / "adapter")


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
