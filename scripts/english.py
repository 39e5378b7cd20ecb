"""``make english``: the preset configs/english.yaml from nothing to a registered adapter, in a folder of its own.

The stages are those of dvc.yaml, with the conversations made before them. What is up to date is skipped, and training
resumes from its checkpoint, so an interrupted run continues when it is started again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from ocrmem.config import RunConfig
from ocrmem.environment import missing_to_compile

ROOT = Path(__file__).resolve().parent.parent
WORKSPACE = ROOT / "english"
CONVERSATIONS, HELD_OUT = 24_000, 200
PROSE_PARTS, PROSE_PART = 2, 250  # an interruption costs no more than one part
# A GPU waits for the next kernel in batches of 16: an H100 does 5 steps of 12 short rows a second. So a quarter of the
# steps with four times the samples, the rate as AdamW wants it (Malladi et al. 2022, arXiv:2205.10287): twice as high.
ON_A_GPU = {
    "max_steps": 1500,
    "per_device_batch_size": 64,
    "learning_rate": 1.6e-3,
    "packing": True,
    "loader_workers": 4,
}


def stages(data: str) -> dict[str, Any]:
    """Return the stages that make conversations in the folder ``data``, and those of dvc.yaml.

    Nothing is copied to DVC's cache: features alone take gigabytes, and what is in the folder is not for sharing.
    """
    found: dict[str, Any] = {
        "synth": {
            "cmd": f"ocrmem synth --style en-plain --output {data} --count {CONVERSATIONS} --eval-count {HELD_OUT}",
            "outs": [f"{data}/{name}.jsonl" for name in ("train", "eval", "counterfactual")],
        }
    }
    for seed in range(PROSE_PARTS):
        found[f"prose-{seed}"] = {
            "cmd": f"ocrmem prose --output {data} --count {PROSE_PART} --seed {seed}",
            "deps": ["models"],
            "params": ["model.base_model_name", "model.base_revision", "model.precision"],
            "outs": [f"{data}/prose-{seed}.jsonl"],
        }
    found |= yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    found["train"]["cmd"] += " --resume"
    for stage in found.values():
        for kind in {"outs", "metrics", "plots"} & stage.keys():
            stage[kind] = [_uncached(place) for place in stage[kind]]
    return found


def _uncached(place: str | dict[str, Any]) -> dict[str, Any]:
    ((name, options),) = ({place: {}} if isinstance(place, str) else place).items()
    return {name: {**options, "cache": False}}


def write_workspace(settings: Path, directory: Path) -> None:
    """Write params.yaml and dvc.yaml; DVC wants every setting by name, those with their default too."""
    values = RunConfig.load(settings).as_dict()
    if torch.cuda.is_available():
        values["train"] |= ON_A_GPU
    else:  # a compiled step takes four fifths of the time (benchmarks/compile_layers.py); on a GPU it was never run
        values["train"]["compile_layers"] = not missing_to_compile(on_gpu=False)
    directory.mkdir(exist_ok=True)
    for name, content in {"params.yaml": values, "dvc.yaml": {"stages": stages(values["data"]["path"])}}.items():
        (directory / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    if not (directory / ".dvc").is_dir():
        subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=directory, check=True)


def main() -> None:
    if torch.cuda.is_available():
        print(
            "On an H100 this should take 8 to 10 minutes, by the speed of its parts (never run as a whole).", flush=True
        )
    else:
        print(
            "There is no GPU here: this takes the night, roughly 6 to 10 hours on two cores. Interrupt it when you "
            "like; `make english` continues it.",
            flush=True,
        )
    write_workspace(ROOT / "configs" / "english.yaml", WORKSPACE)
    for command in (["dvc", "repro"], [sys.executable, str(ROOT / "scripts" / "demo_result.py")]):
        code = subprocess.run(command, cwd=WORKSPACE).returncode
        if code:
            sys.exit(code)


if __name__ == "__main__":
    main()
