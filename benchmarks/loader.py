"""How long a training step waits for its batch: the loader in the training process, and in a worker beside it.

    python benchmarks/loader.py [--quick] [--target 0.05]

The tiny preset's language model on stored features, trained by the real AdapterOnlyTrainer, batches of 64 samples of
about a hundred tokens, from a dataset of 5,000 samples in the tiny preset's words. "wait" is wall time in which the
trainer asks for the batches of a step, over all wall time of the steps, with the samples decoded for the first time
and again; the two ways run in turn. A worker needs a core of its own: on a machine that has no idle one it waits for
that too. "loading" is what a batch costs in processor time when nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common.clock import cores, load, processor_seconds
from common.inputs import grown_config, write_grown
from transformers import Qwen3ForCausalLM, TrainerCallback

from ocrmem import console
from ocrmem.config import RunConfig
from ocrmem.dataset import build
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.dataset.stored_samples import StoredSamples
from ocrmem.encoder.feature_store import FeatureStore, RowFormat
from ocrmem.encoder.feature_writer import FeatureWriter, publish
from ocrmem.model.collator import MemoryCollator
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.modeling import MEMModel
from ocrmem.model.tiny.language_model import tiny_language_model_config
from ocrmem.training.arguments import AdapterTrainingArguments
from ocrmem.training.trainer import AdapterOnlyTrainer

BATCH = 64


class Steps(TrainerCallback):
    """When the steps after the first ones begin and end."""

    def __init__(self, trainer: AdapterOnlyTrainer, warm: int) -> None:
        self.trainer, self.warm = trainer, warm
        self.started = self.waited = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.warm:
            self.started, self.waited = time.monotonic(), self.trainer.seconds_without_data

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.monotonic() - self.started
        self.waited = self.trainer.seconds_without_data - self.waited


def random_features(config: RunConfig, dataset: MemoryDataset) -> FeatureStore:
    """A store of random numbers: they cost as much to read as an encoder's."""
    names, width = dataset.page_hashes(), config.model.vision_embedding_size
    root = Path(config.paths.features)
    form = RowFormat("random", "concat", "float32", "float32", dataset.page_size, dataset.tokens_per_page, width)
    with FeatureWriter(root, form) as writer:
        for start in range(0, len(names), 256):
            some = names[start : start + 256]
            writer.append(some, torch.randn(len(some), dataset.tokens_per_page, width))
        about = {"dataset_pages_sha256": names.sha256()}
        publish(root, form, len(names), torch.zeros(width), torch.ones(width), about)
    return FeatureStore.open(root, pages=names)


def opened(config: RunConfig, features: FeatureStore) -> tuple[StoredSamples, MemoryCollator]:
    """Training samples of which none is decoded yet, and what makes batches of them."""
    dataset = MemoryDataset.open(config.paths.dataset)
    builder = SequenceBuilder.of(config)
    return dataset.samples("train"), MemoryCollator(builder, dataset, features)


def waits(config: RunConfig, features: FeatureStore, workers: int, steps: int) -> dict[str, float]:
    """One training: the share of the steps' wall time that is waiting, and the seconds of a step."""
    warm = 5  # of the first steps the loader's start is a part
    torch.manual_seed(0)
    samples, collate = opened(config, features)
    trainer = AdapterOnlyTrainer(
        model=MEMModel(
            MEMConfig.from_run_config(config, placeholder_token_id=collate.builder.memory.placeholder),
            Qwen3ForCausalLM(tiny_language_model_config()),
        ),
        args=AdapterTrainingArguments.from_run_config(
            config,
            max_steps=warm + steps,
            per_device_train_batch_size=BATCH,
            dataloader_num_workers=workers,
            save_strategy="no",
            logging_steps=1000,
        ),
        train_dataset=samples,  # type: ignore[arg-type]  # a sequence is a map-style dataset
        data_collator=collate,
    )
    clock = Steps(trainer, warm)
    trainer.add_callback(clock)
    trainer.train()
    return {"share": clock.waited / clock.seconds, "step_seconds": clock.seconds / steps}


def loading(config: RunConfig, features: FeatureStore, batches: int) -> float:
    """Processor seconds of making a batch, the median of some."""
    samples, collate = opened(config, features)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()
    seconds = []
    for number in range(batches):
        start = processor_seconds()
        collate([samples[index] for index in order[number * BATCH : (number + 1) * BATCH]])
        seconds.append(processor_seconds() - start)
    return statistics.median(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description="How long a training step waits for its batch.")
    parser.add_argument("--quick", action="store_true", help="2,000 samples, fewer steps")
    parser.add_argument("--target", type=float, default=0.05, help="most of a step that may be waiting, else exit 1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console.set_quiet(True)
    rounds, steps, samples = (1, 20, 2000) if arguments.quick else (2, 30, 5000)
    print(f"Batches of {BATCH}, {steps} steps, {rounds} rounds; {load()}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        config = grown_config(Path(directory))
        write_grown(Path(directory), samples)
        build.build_dataset(config)
        features = random_features(config, MemoryDataset.open(config.paths.dataset))
        batch = loading(config, features, 20)
        found: dict[int, list[dict[str, float]]] = {0: [], 1: []}
        for _ in range(rounds):
            for workers, runs in found.items():
                runs.append(waits(config, features, workers, steps))
    print(f"making a batch alone: {1e3 * batch:.1f} ms of processor time")
    print(f"{'workers':>8}{'step ms':>10}{'waiting':>10}")
    result = {}
    for workers, runs in found.items():
        share = statistics.median(run["share"] for run in runs)
        step = statistics.median(run["step_seconds"] for run in runs)
        result[workers] = {"share": share, "step_ms": 1e3 * step}
        print(f"{workers:8}{1e3 * step:10.0f}{share:10.2%}")
    print(json.dumps({"load_ms": 1e3 * batch, "workers": result}))
    if cores() < 2:
        print("There is one core, so a worker cannot run beside the training: nothing is shown.")
        return 2
    if result[1]["share"] > arguments.target:
        print(f"With a worker steps wait more than {arguments.target:.0%} of their time.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
