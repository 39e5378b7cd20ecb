"""What `ocrmem train --plan` predicts, beside what this machine does.

    python benchmarks/plan_point.py

One thread, float32, in seconds of the processor's time, so that other programs count little. The peak is torch's
matrix product. A Qwen3 with random weights is trained for a few steps by the real MEMModel and AdapterOnlyTrainer:
the share of the peak that it reaches is the MFU. With that MFU the plan predicts other points, which are then run:
another depth and length, activation checkpointing, another width, few tokens a batch. 1.00 is a perfect prediction.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, TrainerCallback

from ocrmem import console
from ocrmem.config import RunConfig
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.modeling import MEMModel
from ocrmem.planning.gpus import Gpu, measured_peak
from ocrmem.planning.plan import plan
from ocrmem.training.arguments import AdapterTrainingArguments
from ocrmem.training.trainer import AdapterOnlyTrainer

PLACEHOLDER, VISION, PAGE_TOKENS, ANSWER, VOCABULARY = 5, 1024, 64, 16, 8192


@dataclass(frozen=True)
class Point:
    """A model and a batch."""

    name: str
    hidden: int
    layers: int
    rows: int
    length: int
    checkpointing: bool = False

    def base(self) -> Qwen3Config:
        return Qwen3Config(
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.hidden // 64,
            num_key_value_heads=self.hidden // 128,
            head_dim=64,
            intermediate_size=3 * self.hidden,
            vocab_size=VOCABULARY,
            tie_word_embeddings=False,
        )

    def config(self, directory: Path, steps: int) -> RunConfig:
        self.base().save_pretrained(directory)
        return RunConfig.from_dict(
            {
                "model": {
                    "base_model_name": str(directory),
                    "ocr_model_name": "deepseek-ai/DeepSeek-OCR",
                    "vision_embedding_size": VISION,
                    "context_threshold": 64,
                    "max_seq_length": self.length,
                    "device": "cpu",
                },
                "render": {"page_size": 512, "token_size": 64, "max_pages": 1},
                "train": {
                    "max_steps": steps,
                    "per_device_batch_size": self.rows,
                    "activation_checkpointing": self.checkpointing,
                },
                "paths": {name: str(directory / name) for name in ("dataset", "checkpoints")},
            }
        )


POINTS = (
    Point("calibration", hidden=768, layers=2, rows=2, length=256),
    Point("deeper and longer", hidden=768, layers=3, rows=2, length=512),
    Point("the same, checkpointed", hidden=768, layers=3, rows=2, length=512, checkpointing=True),
    Point("narrower", hidden=512, layers=3, rows=4, length=256),
    Point("few tokens a batch", hidden=768, layers=3, rows=1, length=128),
)


class Clock(TrainerCallback):
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.process_time() - self._started)


def collate(rows: list[int], length: int) -> dict[str, torch.Tensor]:
    """Full rows, as the plan assumes without a dataset: a page of memory, text, an answer at the end."""
    generator = torch.Generator().manual_seed(rows[0])
    ids = torch.randint(6, VOCABULARY, (len(rows), length), generator=generator)
    ids[:, :PAGE_TOKENS] = PLACEHOLDER
    labels = torch.full_like(ids, -100)
    labels[:, -ANSWER:] = ids[:, -ANSWER:]
    features = torch.randn(len(rows) * PAGE_TOKENS, VISION, generator=generator)
    mask = torch.ones_like(ids)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "memory_features": features}


def measured(point: Point, directory: Path, steps: int) -> float:
    """Tokens a second of the real trainer: positions of a batch over the median step, without the first."""
    config = point.config(directory, steps)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = Qwen3ForCausalLM(point.base())
    clock = Clock()
    trainer = AdapterOnlyTrainer(
        model=MEMModel(MEMConfig.from_run_config(config, placeholder_token_id=PLACEHOLDER), base),
        args=AdapterTrainingArguments.from_run_config(config, save_strategy="no", logging_steps=steps),
        train_dataset=list(range(steps * point.rows)),
        data_collator=lambda rows: collate(rows, point.length),
        callbacks=[clock],
    )
    trainer.train()
    return point.rows * point.length / statistics.median(clock.seconds[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console.set_quiet(True)
    peak = measured_peak(1, seconds=1.5)
    device = Gpu("cpu", "this machine, one thread", 10**12, peak, peak, float("inf"), float("inf"), "measured")
    print(f"peak: {peak / 1e9:.1f} GFLOP/s, float32, one thread")
    mfu = None
    print("| point | tokens/s measured | predicted | predicted / measured | MFU reached |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as work:
        for number, point in enumerate(POINTS):
            directory = Path(work) / str(number)
            config = point.config(directory, arguments.steps)
            rate = measured(point, directory, arguments.steps)
            found = plan(config, gpu=device, mfu=mfu or 1.0, answer_tokens=ANSWER)
            reached = rate * found["flops"]["executed_per_token"] / peak
            if mfu is None:
                mfu = reached
                print(f"| {point.name} | {rate:,.0f} | - | - | {reached:.3f} |", flush=True)
                continue
            predicted = found["time"]["tokens_per_second"]
            print(
                f"| {point.name} | {rate:,.0f} | {predicted:,.0f} | {predicted / rate:.2f} | {reached:.3f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
