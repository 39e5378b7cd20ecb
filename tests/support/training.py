"""A stand-alone training setup, as a user's own script would have it: model, list of samples, collator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from support.models import PLACEHOLDER, VISION, small_model

from ocrmem.training.arguments import AdapterTrainingArguments
from ocrmem.training.trainer import AdapterOnlyTrainer

ANSWER = 3  # tokens


def standalone_samples(count: int = 24, *, seed: int = 0) -> list[dict[str, Any]]:
    """Samples of 0 to 5 memory tokens; answers of different lengths, so that means of means are wrong."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for index in range(count):
        memory = index % 6
        answer = 1 + index % ANSWER
        prompt = torch.randint(6, 60, (4,), generator=generator).tolist()
        ids = [PLACEHOLDER] * memory + prompt
        samples.append(
            {
                "id": f"s{index}",
                "input_ids": ids + torch.randint(6, 60, (answer,), generator=generator).tolist(),
                "supervised": answer,
                "memory_tokens": memory,
                "features": torch.randn(memory, VISION, generator=generator),
            }
        )
    return samples


def mixed_samples() -> list[dict[str, Any]]:
    """`standalone_samples` in which every second one has no memory, so that whole batches have none."""
    samples = standalone_samples(48)
    return [sample for sample in samples if sample["memory_tokens"] == 0] * 2 + [
        sample for sample in samples if sample["memory_tokens"] > 2
    ][:16]


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Right-padded batch; memory features flat in batch order, or none at all."""
    longest = max(len(sample["input_ids"]) for sample in samples)
    ids = torch.zeros(len(samples), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, sample in enumerate(samples):
        length = len(sample["input_ids"])
        ids[row, :length] = torch.tensor(sample["input_ids"])
        mask[row, :length] = 1
        labels[row, length - sample["supervised"] : length] = ids[row, length - sample["supervised"] : length]
    features = torch.cat([sample["features"] for sample in samples])
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "memory_features": features if len(features) else None,
    }


def standalone_arguments(directory: Path, **changes: Any) -> AdapterTrainingArguments:
    """Six steps on the CPU, every step logged, a checkpoint every second step."""
    values: dict[str, Any] = {
        "output_dir": str(directory),
        "max_steps": 6,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 2,
        "use_cpu": True,
        "seed": 3,
    }
    return AdapterTrainingArguments(**(values | changes))


def standalone_trainer(
    directory: Path, *, samples: list[dict[str, Any]] | None = None, model: Any = None, **changes: Any
) -> AdapterOnlyTrainer:
    """A trainer of a fresh small model; ``changes`` go to its arguments."""
    return AdapterOnlyTrainer(
        model=small_model(with_encoder=False) if model is None else model,
        args=standalone_arguments(directory, **changes),
        train_dataset=standalone_samples() if samples is None else samples,
        data_collator=collate,
    )


def logged(trainer: AdapterOnlyTrainer) -> list[tuple[int, float, float, float]]:
    """Step, loss, gradient norm and learning rate of every log entry, exact."""
    return [
        (entry["step"], entry["loss"], entry["proj_grad_norm"], entry["learning_rate"])
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
