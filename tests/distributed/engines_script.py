"""What two ranks do for test_engines.py: every engine trains and resumes in the same two processes, one by one.

Starting a process costs more than all that it does here. Results go to rank-N.json.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from support.models import small_base, small_config
from support.training import collate, logged, mixed_samples, standalone_arguments, standalone_samples

from ocrmem.config import RunConfig
from ocrmem.config.deepspeed import deepspeed_config
from ocrmem.errors import TrainingError
from ocrmem.model.frozen_parts import load_base
from ocrmem.model.modeling import MEMModel
from ocrmem.training import checkpoint, collectives, zero3
from ocrmem.training.trainer import AdapterOnlyTrainer

RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
PLAIN = "ddp"


def engine_settings(engine: str, offload: str = "none") -> dict[str, Any] | None:
    if engine == PLAIN:
        return None
    section = {"deepspeed": engine, "offload": offload}
    return deepspeed_config(RunConfig.model_validate({"train": section}), on_cpu=True)


def make(
    directory: Path,
    engine: str,
    *,
    base: Callable[[], Any] = small_base,
    offload: str = "none",
    samples: Any = None,
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> AdapterOnlyTrainer:
    """A trainer of a fresh small model on this engine; four samples a step over all ranks."""
    changes = {"per_device_train_batch_size": 4 // WORLD} | changes
    arguments = standalone_arguments(
        directory, deepspeed=engine_settings(engine, offload), ddp_backend="gloo", **changes
    )
    with zero3.partition_while_loading(getattr(arguments, "hf_deepspeed_config", None), dtype):
        frozen = base()
    torch.manual_seed(0)
    model = MEMModel(small_config(), frozen, None)
    return AdapterOnlyTrainer(
        model=model,
        args=arguments,
        train_dataset=mixed_samples() if samples is None else samples,
        data_collator=collate,
    )


def trained(trainer: AdapterOnlyTrainer, resume: Path | None = None) -> dict[str, Any]:
    """Train to the end; what a test compares."""
    seen: list[int] = []
    real = trainer.training_step

    def counting(model: Any, inputs: dict[str, Any], *rest: Any) -> torch.Tensor:
        seen.append(0 if inputs["memory_features"] is None else len(inputs["memory_features"]))
        return real(model, inputs, *rest)

    trainer.training_step = counting  # type: ignore[method-assign]
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    before, after = trainer.hashes()
    proj = checkpoint.trained_state(trainer.model)
    return {
        "log": logged(trainer),
        "memory": seen,
        "proj": {name: tensor.tolist() for name, tensor in proj.items()},
        "dtypes": sorted({str(tensor.dtype) for tensor in proj.values()}),
        "frozen": [before.frozen_hash, after.frozen_hash],
    }


def stored_bytes(model: torch.nn.Module) -> int:
    """What the frozen parameters take in this process."""
    frozen = (getattr(parameter, "ds_tensor", parameter) for parameter in model.base_llm_model.parameters())
    return sum(tensor.untyped_storage().nbytes() for tensor in frozen)


def copied_kilobytes(file: Path) -> dict[str, int]:
    """How much of a mapped file this process maps, and how much of that it has copied (Linux: proc(5), smaps)."""
    found = {"Size": 0, "Anonymous": 0}
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if "-" in name.split(" ")[0]:
            inside = line.endswith(str(file))
        elif inside and name in found:
            found[name] += int(value.split()[0])
    return found


def refusal(action: Callable[[], Any]) -> str:
    try:
        action()
    except TrainingError as error:
        return str(error)
    return "nothing was raised"


def poisoned() -> list[dict[str, Any]]:
    samples = standalone_samples(24)
    for sample in samples:
        if sample["memory_tokens"] == 3:
            sample["features"][0, 0] = float("nan")
    return samples


def main(root: Path) -> None:
    results: dict[str, Any] = {}
    with collectives.process_group():
        for engine in (PLAIN, "zero1", "zero2", "zero3"):
            place = root / engine
            results[engine] = trained(make(place, engine))
            results[f"{engine} resumed"] = trained(make(place, engine), place / "checkpoint-2")
        results["zero2 accumulating"] = trained(
            make(root / "accumulating", "zero2", per_device_train_batch_size=1, gradient_accumulation_steps=2)
        )
        results["zero3 offloaded"] = trained(make(root / "offloaded", "zero3", offload="all"))
        results["zero3 checkpointed"] = trained(make(root / "recomputed", "zero3", activation_checkpointing=True))
        # What one process began in the test itself, and what another engine began here.
        results["zero3 from one process"] = trained(make(root / "a", "zero3"), root / "one" / "checkpoint-4")
        results["zero1 from zero3"] = trained(make(root / "b", "zero1"), root / "zero3" / "checkpoint-2")
        results |= loaded(root)
        results["nan"] = {
            engine: refusal(make(root / f"nan-{engine}", engine, samples=poisoned()).train)
            for engine in (PLAIN, "zero2")
        }
        results["full disk"] = refusal(lambda: cannot_write(make(root / "full", "zero2")))
    results["group"] = torch.distributed.is_initialized()
    (root / f"rank-{RANK}.json").write_text(json.dumps(results), encoding="utf-8")


def loaded(root: Path) -> dict[str, Any]:
    """Bases from files: shares under ZeRO-3, one mapped file under DDP and ZeRO-2, and bfloat16."""
    results: dict[str, Any] = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        for engine in (PLAIN, "zero2", "zero3"):
            folder = root / f"base-{name}"
            base = partial(load_base, str(folder), dtype=dtype)
            trainer = make(root / f"{engine}-{name}", engine, base=base, dtype=dtype)
            result = {"bytes": stored_bytes(trainer.model)} | trained(trainer)
            result["mapped"] = copied_kilobytes(folder / "model.safetensors")
            results[f"{engine} {name}"] = result
            del trainer
    return results


def cannot_write(trainer: AdapterOnlyTrainer) -> None:
    """Rank 0 may write files of a kilobyte only: a real error of the operating system, on one rank."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if RANK == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
