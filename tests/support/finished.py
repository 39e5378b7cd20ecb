"""A small workspace in which every verb has run, for tests that damage, kill, starve or move it.

All places in its settings are relative to it, so that a copy stands for itself.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from support.models import small_settings, write_conversations, write_random_base
from support.quick import QUICK
from support.verbs import Verbs

# What a verb leaves; without these a workspace is as the verb finds it.
OUTPUTS = {
    "validate": ["validation.json"],
    "render": ["dataset"],
    "check": ["checks"],
    "encode": ["features"],
    "smoke": ["smoke"],
    "train": ["adapter", "checkpoints", "train.json", "plots"],
    "evaluate": ["evaluation.json", "evaluation.html"],
    "register": ["registration.json", "registry/package"],
    "version": ["version.json", "version", "remote"],
}


def settings() -> dict[str, Any]:
    """With which each verb takes a fraction of a second."""
    values = small_settings(
        Path(),
        data={"shard_conversations": 4},
        train={"max_steps": 3, "save_steps": 2, "logging_steps": 1, "per_device_batch_size": 4},
        smoke={"samples": 2},
        evaluate={"max_samples": 2, "batch_size": 4, "max_new_tokens": 2, "examples": 1},
        register={"uri": "sqlite:///registry/mlflow.db", **QUICK["register"]},
        version={"remote": "remote"},
    )
    values["data"] |= {"path": "data", "workers": 1}
    values["paths"]["reports"] = "."
    return values


def finish(root: Path, verbs: Verbs, which: Iterable[str] = tuple(OUTPUTS)) -> None:
    """Run verbs in an empty folder."""
    (root / "params.yaml").write_text(json.dumps(settings(), indent=2), encoding="utf-8")
    write_conversations(root / "data", train=3, held_out=2)
    write_random_base(root / "models")
    (root / "remote").mkdir()
    for verb in which:
        verbs.good(root, verb)


def before(verb: str, finished: Path, root: Path) -> Path:
    """Copy a finished workspace to ``root``, without what ``verb`` leaves; large inputs are shared."""
    left = set(OUTPUTS[verb])

    def skip(folder: str, names: list[str]) -> set[str]:
        inner = Path(folder).relative_to(finished)
        return {name for name in names if (inner / name).as_posix() in left | {"models", "data"}}

    shutil.copytree(finished, root, ignore=skip)
    for name in ("models", "data"):
        (root / name).symlink_to(finished / name)
    (root / "remote").mkdir(exist_ok=True)
    return root
