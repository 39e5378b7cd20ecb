"""The verb ``train``: proj on the training samples, from dataset/ and features/ to adapter/."""

from __future__ import annotations

import importlib.metadata
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ocrmem import console
from ocrmem.config import RunConfig
from ocrmem.dataset.loader import MemoryDataset
from ocrmem.dataset.schema import Sample
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.encoder.features import FeatureStore
from ocrmem.errors import ConfigError, DataError
from ocrmem.files import replacing_directory, sha256_json, sha256_tree, write_json
from ocrmem.model.batch import MemoryCollator
from ocrmem.model.modeling import MEMModel
from ocrmem.tokens import load_tokenizer
from ocrmem.tracking import Run, track
from ocrmem.training.arguments import AdapterTrainingArguments
from ocrmem.training.callbacks import StopCallback, TrackingCallback, stop_on_signal
from ocrmem.training.checkpoint import PREVIOUS, all_checkpoints, newest_complete, set_aside
from ocrmem.training.plots import curve, write_curve
from ocrmem.training.trainer import AdapterOnlyTrainer

REPORT = "train.json"
PLOT = "plots/train.csv"
# What may lie in the adapter's directory, which is replaced as a whole.
_ADAPTER_FILES = {"adapter.safetensors", "config.json", "README.md", "provenance.json"}
_VERSIONED = ("ocrmem", "torch", "transformers", "accelerate")


def train(config: RunConfig, *, resume: bool = False, output: str | None = None) -> dict[str, Any]:
    """Train proj and write adapter/, train.json and plots/train.csv; from another seed while the loss stays high.

    With ``train.target_loss``, attempt k (from 0) has the seed ``train.seed + 1000 * k`` and checkpoints of its
    own; the attempts end at the first whose last logged loss is low enough, and the best one is kept.

    Arguments, result and errors are those of `train_once`; the result also has ``attempts``.
    """
    attempts: list[dict[str, Any]] = []
    best: dict[str, Any] = {}
    for number in range(config.train.max_attempts if config.train.target_loss is not None else 1):
        chosen = _attempt(config, number)
        least = min((attempt["loss"] for attempt in attempts), default=None)
        result = train_once(chosen, resume=resume, output=output, below=least)
        if not result["summary"]:  # not the main process
            return result
        loss = result["loss"]["last"] if result["loss"] else float("inf")
        attempts.append({"seed": chosen.train.seed, "loss": loss})
        if least is None or loss < least:
            best = result
        if config.train.target_loss is None or loss <= config.train.target_loss:
            break
        console.note(
            f"attempt {number + 1} of {config.train.max_attempts}, seed {chosen.train.seed}: loss {loss:.4f} is above "
            f"train.target_loss {config.train.target_loss}"
        )
    best["attempts"] = attempts
    write_json(config.paths.report(REPORT), {key: value for key, value in best.items() if key != "summary"})
    if len(attempts) > 1:
        told = ", ".join(f"seed {attempt['seed']}: {attempt['loss']:.4f}" for attempt in attempts)
        best["summary"].append(f"{len(attempts)} attempts ({told}); the one with the lowest loss is kept")
    return best


def _attempt(config: RunConfig, number: int) -> RunConfig:
    if number == 0:
        return config
    section = config.train.model_copy(update={"seed": config.train.seed + 1000 * number})
    checkpoints = str(Path(config.paths.checkpoints) / f"attempt-{number}")
    paths = config.paths.model_copy(update={"checkpoints": checkpoints})
    return config.model_copy(update={"train": section, "paths": paths})


def train_once(
    config: RunConfig, *, resume: bool = False, output: str | None = None, below: float | None = None
) -> dict[str, Any]:
    """Train proj from one seed and write adapter/, train.json and plots/train.csv.

    Args:
        config: the run; ``train.processes`` must be the number of processes that run this.
        resume: go on from the newest complete checkpoint, if there is one.
        output: directory for the adapter instead of ``paths.adapter``.
        below: write nothing unless the last logged loss is under this.

    Returns:
        What train.json holds, and ``summary``.

    Raises:
        MissingInputError: an earlier verb has not run.
        ConfigError: device, number of processes or output directory will not do.
        DataError: there are no training samples.
        TrainingError: see `AdapterOnlyTrainer.train`.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
    """
    started = time.monotonic()
    adapter = Path(output or config.paths.adapter)
    _check_output(adapter)
    arguments = AdapterTrainingArguments.from_run_config(config)
    _check_processes(config, arguments)
    is_main = arguments.process_index == 0
    inputs = _Inputs.open(config)
    model = MEMModel.from_run_config(config, with_encoder=False)
    model.set_feature_statistics(inputs.features.mean, inputs.features.std)
    builder = SequenceBuilder(load_tokenizer(config), config.model.max_seq_length)
    with arguments.main_process_first(local=False, desc="looking for checkpoints"):
        going_on = _prepare_checkpoints(Path(config.paths.checkpoints), resume, is_main)
    tracking = track(config, "train") if is_main else nullcontext(Run())
    with _process_group(arguments), tracking as run, stop_on_signal(arguments.world_size == 1) as wish:
        trainer = AdapterOnlyTrainer(
            model=model,
            args=arguments,
            identity=inputs.identity(),
            train_dataset=inputs.samples,  # type: ignore[arg-type]  # a list is a map-style dataset
            data_collator=MemoryCollator(builder, inputs.dataset, inputs.features),
            callbacks=[TrackingCallback(run), StopCallback(wish)],
        )
        trainer.train(resume_from_checkpoint=going_on)
        if wish.signal is not None and trainer.state.global_step < config.train.max_steps:
            _stop(wish.signal, trainer)
        if not is_main:
            return {"summary": []}
        rows = curve(trainer.state.log_history)
        if below is not None and not (rows and rows[-1]["loss"] < below):
            loss = {"first": rows[0]["loss"], "last": rows[-1]["loss"]} if rows else None
            return {"loss": loss, "summary": ["not kept: an earlier attempt's loss is lower"]}
        report = _write(config, model, trainer, inputs, adapter)
        report["seconds"] = round(time.monotonic() - started, 1)
        write_json(config.paths.report(REPORT), report)
        run.summarize(report)
    return report | {"summary": _summary(config, report, adapter, trainer.resumed_step, run)}


@dataclass(frozen=True)
class _Inputs:
    """What earlier verbs wrote."""

    dataset: MemoryDataset
    features: FeatureStore
    samples: list[Sample]

    @classmethod
    def open(cls, config: RunConfig) -> _Inputs:
        dataset = MemoryDataset.open(Path(config.paths.dataset))
        features = FeatureStore.open(
            Path(config.paths.features),
            pages=dataset.page_hashes(),
            feature_size=config.model.vision_embedding_size,
        )
        samples = dataset.samples("train")
        if not samples:
            raise DataError.of(
                config.paths.dataset,
                "has no sample in the split train",
                "Give conversations that are not all held out, and run `ocrmem render` again",
            )
        return cls(dataset, features, samples)

    def identity(self) -> dict[str, Any]:
        """What the losses depend on besides the trainer's arguments and the frozen weights."""
        return {
            "dataset": sha256_json(self.dataset.manifest),
            "features": sha256_json([self.features.manifest[name] for name in ("format", "dataset_pages_sha256")]),
        }


@contextmanager
def _process_group(arguments: AdapterTrainingArguments) -> Iterator[None]:
    """Leave the process group in order: processes that just exit abort now and then. After an error they do
    just exit: waiting for the others could hang."""
    yield
    if arguments.world_size > 1:
        torch.distributed.destroy_process_group()


def _check_output(adapter: Path) -> None:
    """The adapter's directory is replaced as a whole: it must not hold anything else."""
    if adapter.exists() and not adapter.is_dir():
        raise ConfigError.of(str(adapter), "is a file, not a directory", "Give another directory for the adapter")
    others = sorted(path.name for path in adapter.glob("*") if path.name not in _ADAPTER_FILES)
    if others:
        raise ConfigError.of(
            str(adapter),
            f"is to be replaced by the new adapter, but holds other files: {', '.join(others[:5])}",
            "Give a directory that is new, empty or holds an adapter",
        )


def _check_processes(config: RunConfig, arguments: AdapterTrainingArguments) -> None:
    if arguments.world_size != config.train.processes:
        raise ConfigError.of(
            "train.processes",
            f"is {config.train.processes}, but {arguments.world_size} run: batches would be of another size",
            "Set train.processes to the number that runs; torchrun --nproc-per-node N starts more",
        )


def _prepare_checkpoints(directory: Path, resume: bool, is_main: bool) -> bool:
    """Whether there is a checkpoint to go on from; a run from the start moves older ones out of its way."""
    if resume:
        if newest_complete(directory) is not None:
            return True
        console.note(f"{directory} has no complete checkpoint: starting from the first step.")
    elif is_main and (moved := set_aside(directory)):
        console.note(
            f"Starting from the first step. {len(moved)} older checkpoints are now in {directory / PREVIOUS}."
            " To go on from them instead, interrupt this run, move them back and use --resume."
        )
    return False


def _stop(number: int, trainer: AdapterOnlyTrainer) -> None:
    newest = all_checkpoints(trainer.directory)[-1]
    console.note(f"Stopped at step {trainer.state.global_step}. To go on from {newest}: ocrmem train --resume")
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _write(
    config: RunConfig, model: MEMModel, trainer: AdapterOnlyTrainer, inputs: _Inputs, adapter: Path
) -> dict[str, Any]:
    """Write the adapter and the curve; returns the report without its seconds."""
    if adapter.is_mount():  # a mounted volume cannot be renamed: its files are replaced one by one
        for name in _ADAPTER_FILES:
            (adapter / name).unlink(missing_ok=True)
        model.save_pretrained(adapter)
    else:
        with replacing_directory(adapter) as directory:
            model.save_pretrained(directory)
    rows = curve(trainer.state.log_history)
    write_curve(config.paths.report(PLOT), rows)
    with_memory = len([sample for sample in inputs.samples if sample.has_memory])
    before, after = trainer.fingerprints()
    return {
        "steps": trainer.state.global_step,
        "loss": {"first": rows[0]["loss"], "last": rows[-1]["loss"]} if rows else None,
        "samples": {"train": len(inputs.samples), "with_memory": with_memory},
        "tokens": trainer.state.num_input_tokens_seen,
        "parameters": sum(parameter.numel() for parameter in model.proj.parameters()),
        "adapter_sha256": sha256_tree(adapter),
        "frozen_sha256": {"before": before.frozen_hash, "after": after.frozen_hash},
        "proj_sha256": {"before": before.proj_hash, "after": after.proj_hash},
        "device": str(trainer.args.device),
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONED}
        | {"python": platform.python_version()},
    }


def _summary(config: RunConfig, report: dict[str, Any], adapter: Path, resumed: int, run: Run) -> list[str]:
    loss = report["loss"]
    lines = [
        f"Trained {report['parameters']:,} parameters of proj for {report['steps']} steps"
        + (f" (from a checkpoint at step {resumed})" if resumed else "")
        + f" in {report['seconds']} s.",
        f"  samples: {report['samples']['train']}, {report['samples']['with_memory']} of them with memory",
    ]
    if loss:
        lines.append(f"  loss: {loss['first']:.4f} -> {loss['last']:.4f}")
    lines.append(f"  frozen weights unchanged: sha256 {report['frozen_sha256']['after'][:12]} before and after")
    lines.append(f"Adapter: {adapter} (sha256 {report['adapter_sha256'][:12]})")
    lines.append(f"Report: {config.paths.report(REPORT)}; curve: {config.paths.report(PLOT)}")
    if run.place is not None:
        lines.append(f"Weights & Biases, offline: {run.place}")
    return lines
