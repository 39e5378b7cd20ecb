"""The verb ``train``: train proj, and LoRA on request, on dataset/ and features/; write adapter/."""

from __future__ import annotations

import csv
import io
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, cast

import torch

from ocrmem import console
from ocrmem.config import RunConfig
from ocrmem.dataset.manifest import warnings_of
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.dataset.stored_samples import StoredSamples
from ocrmem.encoder.device import DTYPES
from ocrmem.encoder.feature_store import FeatureStore
from ocrmem.errors import ConfigError, DataError, PreemptedError
from ocrmem.facts import ADAPTER_FILES, PACKAGE_FILES, TRAIN_REPORT
from ocrmem.files import locked, replacing_directory, sha256_json, sha256_tree, write_json, write_text
from ocrmem.json_files import with_sha256
from ocrmem.model.adapter_files import write_adapter
from ocrmem.model.configuration import MEMConfig
from ocrmem.model.modeling import MEMModel
from ocrmem.model.trainable import count_parameters
from ocrmem.objectives import Material, make_objectives
from ocrmem.planning.epochs import with_steps
from ocrmem.tracking import Run, track, tracker_problems
from ocrmem.training import collectives, zero3
from ocrmem.training.arguments import AdapterTrainingArguments
from ocrmem.training.callbacks import TrackingCallback, stop_on_signal
from ocrmem.training.checkpoint import PREVIOUS, CheckpointStore
from ocrmem.training.collectives import process_group
from ocrmem.training.curriculum import memory_lengths
from ocrmem.training.held_out import HeldOut
from ocrmem.training.outputs import PLOT, check_outputs, require_room
from ocrmem.training.speed import Speed, SpeedMeter, logged_speed
from ocrmem.training.stages import Stages
from ocrmem.training.trainer import AdapterOnlyTrainer
from ocrmem.training.warm_start import WarmStart
from ocrmem.verdicts import warning_lines
from ocrmem.versions import versions

TEACHER = "teacher"  # below ``paths.checkpoints``: the teacher's logits
_CURVE = ("step", "loss", "proj_grad_norm", "learning_rate", "eval_loss", "eval_recall")
_VERSIONED = ("torch", "transformers", "accelerate")


class TrainResult(TypedDict, total=False):
    """What train.json holds, and ``summary``; empty in all processes but the first.

    Attributes:
        steps: optimizer steps done; ``tokens`` those seen, without padding.
        loss: ``first`` and ``last`` logged loss; None where none was logged.
        held_out: ``loss`` and ``recall`` at the ``first`` and ``last`` measurement; None without `train.eval_steps`.
        speed: tokens a second, MFU and peak GPU memory of each process, by rank.
        samples: training samples (``train``), and those that have memory (``with_memory``).
        parameters: trained ones.
        frozen_sha256, proj_sha256, lora_sha256: hashes ``before`` and ``after`` the training; the last with LoRA only.
        seconds_without_data: how long steps waited for batches.
        from_adapter: hash of the adapter that the training began with, if it began with one.
        stages: objective, steps, ``samples`` that it could use, ``first`` and ``last`` logged loss of each stage.
        warnings: what makes the dataset less than it seems.
        summary: what a person reads.
    """

    steps: int
    loss: dict[str, float] | None
    held_out: dict[str, dict[str, float]] | None
    speed: list[dict[str, Any]]
    samples: dict[str, int]
    tokens: int
    parameters: int
    frozen_sha256: dict[str, str]
    proj_sha256: dict[str, str]
    lora_sha256: dict[str, str]
    device: str
    processes: int
    seconds_without_data: float
    versions: dict[str, str]
    adapter_sha256: str
    from_adapter: str
    stages: list[dict[str, Any]]
    seconds: float
    warnings: list[str]
    summary: list[str]


def train(config: RunConfig, *, resume: bool = False, output: str | None = None) -> TrainResult:
    """Train proj and write adapter/, train.json and plots/train.csv.

    Args:
        config: the run; ``train.processes`` must be the number of processes that run this.
        resume: resume from the newest complete checkpoint, if there is one.
        output: directory for the adapter instead of ``paths.adapter``.

    Raises:
        MissingInputError: an earlier verb has not run.
        ConfigError: the device, the number of processes, DeepSpeed, the tracker or the disk cannot be used; as
            BusyError while another run writes the adapter or the checkpoints.
        DataError: there are no training samples.
        TrainingError: see `AdapterOnlyTrainer.train`; as PreemptedError after SIGTERM, once a checkpoint is
            written.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
    """
    started = time.monotonic()
    config = with_steps(config)
    adapter = Path(output or config.paths.adapter)
    check_outputs(config, adapter)
    with _only_writer(config, adapter), process_group(), ExitStack() as open_run:
        if collectives.rank() == 0 and (problems := tracker_problems(config)):
            raise ConfigError(problems)
        trained = _train_proj(config, resume, adapter, open_run)
        # Before the tracked run is closed: a tracker may take its time, or fail.
        return _write(config, trained, adapter, started) if collectives.rank() == 0 else {}


@contextmanager
def _only_writer(config: RunConfig, adapter: Path) -> Iterator[None]:
    """Hold the locks of what a run writes, in the first process: the group of processes is not set up yet."""
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    with locked(config.paths.checkpoints, "train"), locked(adapter, "train"):
        yield


@dataclass(frozen=True)
class _Trained:
    """The adapter in memory, its curve, and what train.json says of it."""

    config: MEMConfig
    tensors: dict[str, torch.Tensor]
    curve: list[dict[str, float]]
    report: TrainResult
    resumed_step: int
    tracked: Path | None


def _train_proj(config: RunConfig, resume: bool, adapter: Path, open_run: ExitStack) -> _Trained:
    """Train proj; writes checkpoints only, and leaves the tracked run open.

    Args:
        adapter: where the adapter will be.
        open_run: takes the tracked run, and with it how that ends.
    """
    arguments = AdapterTrainingArguments.from_run_config(config)
    if arguments.world_size != config.train.processes:
        raise ConfigError.of(
            "train.processes",
            f"is {config.train.processes}, but {arguments.world_size} run: batches would be of another size",
            "Start them with `ocrmem train --nproc N`, which also sets train.processes",
        )
    is_main = arguments.process_index == 0
    start = WarmStart.of(config)
    dataset, features, samples = _open_inputs(config)
    with zero3.partition_while_loading(getattr(arguments, "hf_deepspeed_config", None), DTYPES[config.model.precision]):
        model = MEMModel.from_run_config(config, with_encoder=False, whole=zero3.gathered)
    if arguments.device.type == "cpu" and config.model.precision != "float32":
        # torch's fused attention goes back in half precision at half the speed of plain matrix products.
        model.base_llm_model.set_attn_implementation("eager")
    model.set_feature_statistics(features.mean, features.std)
    model.config.system = samples.usual_system()
    if start is not None:
        start.load_into(model)
    material = Material(
        config,
        SequenceBuilder.of(config),
        dataset,
        features,
        samples,
        teacher=Path(config.paths.checkpoints) / TEACHER,
        process=arguments.process_index,
        any_process=partial(collectives.any_process, arguments.device),
    )
    stages = _stages(config, material, model)
    held_out = HeldOut.of(config, model, material.builder, dataset, features)
    identity: dict[str, Any] = {
        "dataset": sha256_json(dataset.manifest),
        "features": sha256_json([features.manifest[name] for name in ("format", "dataset_pages_sha256")]),
    }
    if start:
        identity["from_adapter"] = start.sha256
    if model.config.lora is not None:
        identity["lora"] = model.config.lora
    checkpoint = _prepare_checkpoints(CheckpointStore(Path(config.paths.checkpoints)), resume)
    run = Run(config, "train")
    if is_main:
        require_room(config, adapter, sum(part.trainable for part in count_parameters(model)))
        run = open_run.enter_context(track(config, "train"))
    with stop_on_signal() as stop:
        trainer = AdapterOnlyTrainer(
            model=model,
            args=arguments,
            stages=stages,
            meter=SpeedMeter.of(config, arguments.device),
            held_out=held_out.measure if held_out else None,
            eval_dataset=held_out.samples if held_out else None,
            identity=identity,
            train_dataset=samples,  # type: ignore[arg-type]  # a list is a map-style dataset
            callbacks=[TrackingCallback(run), stop],
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        if stop.signal is not None and trainer.state.global_step < config.train.max_steps:
            _stop(stop.signal, trainer, is_main)
    rows = _curve(trainer.state.log_history)
    report = _report(trainer, stages, samples, rows)
    if start is not None:
        report["from_adapter"] = start.sha256
    run.summarize(report)
    stored, statistics = DTYPES[config.train.adapter_precision], dict(model.named_buffers(recurse=False))
    tensors = {name: t if name in statistics else t.to(stored) for name, t in trainer.adapter_tensors().items()}
    return _Trained(model.config, tensors, rows, report, trainer.resumed_step, run.place)


def _stages(config: RunConfig, material: Material, model: MEMModel) -> Stages:
    """Return the run's stages, their objectives prepared for the model."""
    objectives = make_objectives(config.train.objectives(), material)
    with zero3.gathered(model.get_input_embeddings().parameters()):
        for objective in objectives.values():
            objective.prepare(model)
    lengths = memory_lengths(material.samples) if config.train.curriculum > 0 else None
    return Stages(config.train, objectives, lengths)


def _open_inputs(config: RunConfig) -> tuple[MemoryDataset, FeatureStore, StoredSamples]:
    """Open the outputs of earlier verbs: the dataset, its features, and its training samples."""
    dataset = MemoryDataset.open(Path(config.paths.dataset))
    width = config.model.vision_embedding_size
    features = FeatureStore.open(Path(config.paths.features), pages=dataset.page_hashes(), feature_size=width)
    samples = dataset.samples("train")
    if not samples:
        raise DataError.of(
            config.paths.dataset,
            "has no sample in the split train",
            "Give conversations that are not all held out, and run `ocrmem render` again",
        )
    return dataset, features, samples


def _prepare_checkpoints(store: CheckpointStore, resume: bool) -> str | None:
    """Return the checkpoint to resume from; a run from its first step moves older ones out of its way.

    The first process looks and moves, and the others get its answer.

    Raises:
        TrainingError: there are checkpoints to resume from, and none of them is complete.
    """
    found = None
    if collectives.rank() == 0:
        found = store.newest_complete() if resume else None
        if resume and not store.paths():
            console.note(f"{store.directory} has no checkpoint: starting from the first step.")
        elif not resume and (moved := store.set_aside()):
            console.note(
                f"Starting from the first step. {len(moved)} older checkpoints are now in {store.directory / PREVIOUS}."
                " To resume from them instead, interrupt this run, move them back and use --resume."
            )
    chosen = collectives.broadcast(str(found.path) if found else None)
    if resume and chosen is None:
        store.refuse_incomplete()
    return chosen


def _stop(number: int, trainer: AdapterOnlyTrainer, is_main: bool) -> None:
    step, newest = trainer.state.global_step, trainer.checkpoints.paths()[-1]
    if number != signal.SIGINT:
        raise PreemptedError.of(
            "train",
            f"was stopped by {signal.Signals(number).name} after step {step}; {newest} holds all of it",
            "Resume with `ocrmem train --resume`",
        )
    if is_main:
        console.note(f"Stopped at step {step}. To resume from {newest}: ocrmem train --resume")
    raise KeyboardInterrupt


def _report(
    trainer: AdapterOnlyTrainer, stages: Stages, samples: StoredSamples, rows: list[dict[str, float]]
) -> TrainResult:
    """Return what train.json says of the training."""
    before, after = trainer.hashes()
    report: TrainResult = {
        "steps": trainer.state.global_step,
        "loss": _ends(rows),
        "held_out": _held_out(rows),
        "speed": [dict(speed) for speed in trainer.speeds()],
        "stages": [
            {
                "objective": stage.objective,
                "mix": stage.mix,
                "steps": stage.steps,
                "samples": len(stages.objectives[stage.objective].eligible()),
                "loss": _ends([row for row in rows if row.get("stage", 1) == number]),
            }
            for number, stage in enumerate(stages.stages, 1)
        ],
        "samples": {"train": len(samples), "with_memory": int((samples.column("memory_tokens") > 0).sum())},
        "tokens": trainer.state.num_input_tokens_seen,
        "parameters": sum(part.trainable for part in count_parameters(trainer.model)),
        "frozen_sha256": {"before": before.frozen_hash, "after": after.frozen_hash},
        "proj_sha256": {"before": before.proj_hash, "after": after.proj_hash},
        "device": str(trainer.args.device),
        "processes": trainer.args.world_size,
        "seconds_without_data": round(trainer.seconds_without_data, 1),
        "versions": versions(*_VERSIONED),
    }
    if after.lora:
        report["lora_sha256"] = {"before": before.lora_hash, "after": after.lora_hash}
        report["versions"] = versions(*_VERSIONED, "peft")
    return report


def _curve(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return the entries that have a loss, each with the figures that were measured at its step."""
    measured = {entry["step"]: entry for entry in history if "eval_loss" in entry}
    return [measured.get(entry["step"], {}) | entry for entry in history if "loss" in entry]


def _held_out(rows: list[dict[str, float]]) -> dict[str, dict[str, float]] | None:
    """Return loss and recall of the first and the last measurement on held-out samples."""
    found = [row for row in rows if "eval_loss" in row]
    if not found:
        return None
    ends = {"first": found[0], "last": found[-1]}
    return {name: {"loss": row["eval_loss"], "recall": row["eval_recall"]} for name, row in ends.items()}


def _ends(rows: list[dict[str, float]]) -> dict[str, float] | None:
    return {"first": rows[0]["loss"], "last": rows[-1]["loss"]} if rows else None


def _write(config: RunConfig, trained: _Trained, adapter: Path, started: float) -> TrainResult:
    """Write adapter, curve and train.json; return the report with its summary."""
    if adapter.is_mount():  # a mounted volume cannot be renamed: its files are replaced one by one
        for name in set(PACKAGE_FILES) - set(ADAPTER_FILES):  # they describe the adapter that goes
            (adapter / name).unlink(missing_ok=True)
        write_adapter(adapter, trained.config, trained.tensors)
    else:
        with replacing_directory(adapter) as directory:
            write_adapter(directory, trained.config, trained.tensors)
    # Numbers keep every digit, so equal runs give equal files.
    curve = io.StringIO()
    columns = (*_CURVE, *(("stage",) if len(config.train.stages) > 1 else ()))
    # Where nothing was measured: a plot takes an empty text as 0.
    writer = csv.DictWriter(curve, columns, restval="nan", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(trained.curve)
    write_text(config.paths.report(PLOT), curve.getvalue())
    report: TrainResult = {
        **trained.report,
        "adapter_sha256": sha256_tree(adapter),
        "seconds": round(time.monotonic() - started, 1),
        "warnings": warnings_of(Path(config.paths.dataset)),
    }
    write_json(config.paths.report(TRAIN_REPORT), with_sha256(report))
    return {**report, "summary": _summary(config, report, adapter, trained)}


def _speed_line(speeds: list[dict[str, Any]]) -> str:
    """Say how fast the processes were together, and what the fullest GPU held; nothing if no step was left to do."""
    together = logged_speed(cast("list[Speed]", speeds))
    if not together["tokens_per_second"]:
        return ""
    line = f"{together['tokens_per_second']:,.0f} tokens/s"
    if "mfu" in together:
        line += f", MFU {together['mfu']:.2f}"
    if "peak_memory_gib" in together:
        line += f", {together['peak_memory_gib']:.1f} GiB of GPU memory at the peak"
    return line


def _summary(config: RunConfig, report: TrainResult, adapter: Path, trained: _Trained) -> list[str]:
    what = "proj and LoRA" if "lora_sha256" in report else "proj"
    lines = [
        f"Trained {report['parameters']:,} parameters of {what} for {report['steps']} steps"
        + (f" (from a checkpoint at step {trained.resumed_step})" if trained.resumed_step else "")
        + (f" on {report['processes']} processes" if report["processes"] > 1 else "")
        + f" in {report['seconds']} s.",
        f"  samples: {report['samples']['train']}, {report['samples']['with_memory']} of them with memory",
    ]
    if digest := report.get("from_adapter"):
        lines.append(f"  began with {config.train.from_adapter} (sha256 {digest[:12]})")
    for stage in report["stages"]:
        if ends := stage["loss"]:
            of = f" of {stage['objective']} ({stage['steps']} steps)" if config.train.stages else ""
            lines.append(f"  loss{of}: {ends['first']:.4f} -> {ends['last']:.4f}")
    if held := report["held_out"]:
        first, last = held["first"], held["last"]
        lines.append(
            f"  held out: loss {first['loss']:.4f} -> {last['loss']:.4f}, recall {first['recall']:.3f} -> "
            f"{last['recall']:.3f}"
        )
    if line := _speed_line(report["speed"]):
        lines.append(f"  {line}")
    lines.append(f"  frozen weights unchanged: sha256 {report['frozen_sha256']['after'][:12]} before and after")
    lines += warning_lines(report["warnings"])
    lines.append(f"Adapter: {adapter} (sha256 {report['adapter_sha256'][:12]})")
    lines.append(f"Report: {config.paths.report(TRAIN_REPORT)}; curve: {config.paths.report(PLOT)}")
    if trained.tracked is not None:
        lines.append(f"Weights & Biases, offline: {trained.tracked}")
    return lines
