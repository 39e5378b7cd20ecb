"""What two ranks do for test_stages.py: the verb train, with LoRA, on every engine, one after the other."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ocrmem.config import RunConfig
from ocrmem.model import supervised_loss
from ocrmem.training import collectives
from ocrmem.training.train import train

RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
supervised_loss.LOGITS_AT_ONCE = 16  # fewer than a batch of transcription has, where the head is in one piece
ENGINES = {"ddp": None, "zero2": "zero2", "zero3": "zero3"}
STAGES = [
    {"objective": "align", "steps": 2, "learning_rate": 0.01, "per_device_batch_size": 8},
    {"objective": "transcribe", "steps": 2, "per_device_batch_size": 4},
    {"objective": "distil", "steps": 3, "mix": {"distil": 2, "answer": 1}, "per_device_batch_size": 4},
]
STEPS = 7


def settings(root: Path, name: str, engine: str | None) -> RunConfig:
    """A run on the workspace under ``root``, in a folder of its own; its global batch is the same for any ranks."""
    values: dict[str, Any] = json.loads((root / "params.yaml").read_text(encoding="utf-8"))
    stages = [stage | {"per_device_batch_size": int(str(stage["per_device_batch_size"])) // WORLD} for stage in STAGES]
    values["train"] |= {"stages": stages, "max_steps": STEPS, "save_steps": 1, "save_total_limit": STEPS}
    values["train"] |= {"processes": WORLD, "deepspeed": engine, "lora": {"rank": 2}}
    values["train"] |= {"eval_steps": 3, "eval_samples": 3}
    values["evaluate"] = values.get("evaluate", {}) | {"batch_size": 1}  # ranks whose shares have 2 batches and 1
    values["model"]["projector_output_norm"] = True
    values["paths"] |= {key: str(root / name / key) for key in ("adapter", "checkpoints", "reports")}
    return RunConfig.from_dict(values)


def trained(root: Path, name: str, engine: str | None, *, resume: bool = False) -> dict[str, Any]:
    """Train; the curve and the adapter."""
    config = settings(root, name, engine)
    train(config, resume=resume)
    collectives.gather(None)  # the first rank writes the files
    with config.paths.report("plots/train.csv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    adapter = load_file(Path(config.paths.adapter) / "adapter.safetensors")
    trained = {key: tensor.tolist() for key, tensor in adapter.items() if key.startswith(("proj.", "lora."))}
    return {"rows": rows, "trained": trained}


def main(root: Path) -> None:
    results: dict[str, Any] = {}
    with collectives.process_group():
        torch.distributed.init_process_group("gloo")  # one for all runs, each of which would make and leave its own
        for name, engine in ENGINES.items():
            results[name] = trained(root, name, engine)
    (root / f"rank-{RANK}.json").write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
