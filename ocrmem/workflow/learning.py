"""The tasks from features to a registered adapter: one function a component."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ocrmem.config import RunConfig
from ocrmem.files import read_json
from ocrmem.workflow.pages import bullets, table, write_page
from ocrmem.workflow.task import Artifact, Task, copy_file, flat, log_metrics, running

_EVALUATION = "evaluation.json"


def train(
    settings: str,
    launcher: str,
    dataset: Artifact,
    models: Artifact,
    features: Artifact,
    adapter: Artifact,
    training: Artifact,
    metrics: Artifact,
) -> None:
    """Train proj, going on from the run's newest checkpoint if an earlier try left one.

    Args:
        launcher: ``local``: in this pod, on as many processes as ``train.processes`` says; ``kubernetes``: in a
            TrainJob, which this task follows.
        training: a directory with train.json and plots/train.csv.
    """
    inputs = {"dataset": dataset.path, "models": models.path, "features": features.path}
    with running("train", settings, adapter=adapter.path, **inputs) as task:
        config = task.config()
        result = _train_in_job(task, config) if launcher == "kubernetes" else _train_here(config)
        _told(task, result, adapter, training, metrics)


def _train_here(config: RunConfig) -> dict[str, Any]:
    from ocrmem.training.launch import is_wanted, launch
    from ocrmem.training.train import train as train_here

    return {**(launch if is_wanted(config) else train_here)(config, resume=True)}


def _train_in_job(task: Task, config: RunConfig) -> dict[str, Any]:
    from ocrmem.workflow.training_job import train_in_job

    return train_in_job(config, task.report("."))


def _told(task: Task, result: dict[str, Any], adapter: Artifact, training: Artifact, metrics: Artifact) -> None:
    shutil.copytree(task.report("."), training.path, dirs_exist_ok=True)
    adapter.metadata.update(
        adapter_sha256=result["adapter_sha256"], parameters=result["parameters"], steps=result["steps"]
    )
    figures = flat(result, "loss.first", "loss.last", "steps", "tokens", "seconds")
    adapter.metadata.update({name: figures[name] for name in ("loss.first", "loss.last") if name in figures})
    log_metrics(metrics, figures)
    task.done(result["summary"], figures)


def evaluate(
    settings: str,
    adapter: Artifact,
    training: Artifact,
    dataset: Artifact,
    models: Artifact,
    features: Artifact,
    evaluation: Artifact,
    report: Artifact,
    metrics: Artifact,
) -> None:
    """Measure the adapter beside its baselines.

    Args:
        evaluation: evaluation.json.
        report: evaluation.html, one file with all its pictures in it.
    """
    inputs = {name: artifact.path for name, artifact in
              (("adapter", adapter), ("dataset", dataset), ("models", models), ("features", features))}  # fmt: skip
    with running("evaluate", settings, **inputs) as task:
        config = task.config()
        shutil.copytree(training.path, task.report("."))  # the curve of the loss is drawn into the report
        from ocrmem.evaluation.evaluate import REPORT
        from ocrmem.evaluation.evaluate import evaluate as run
        from ocrmem.evaluation.result import VARIANTS

        result = run(config)
        copy_file(task.report(_EVALUATION), evaluation)
        copy_file(task.report(REPORT), report)
        evaluation.metadata.update(
            adapter_sha256=result["adapter_sha256"], dataset_manifest_sha256=result["dataset_manifest_sha256"]
        )
        names = [f"{name}.{key}" for name in VARIANTS for key in ("recall", "loss")]
        figures = flat(result, *names, "compression_ratio")
        log_metrics(metrics, figures)
        task.done(result["summary"][:-1], figures)


def gate(settings: str, evaluation: Artifact, report: Artifact) -> bool:
    """Compare evaluation.json with ``register.gate`` and show it; `register` is what acts on it.

    Returns:
        whether every line is met.
    """
    with running("gate", settings) as task:
        config = task.config()
        from ocrmem.evaluation.gate import gate_lines

        lines = gate_lines(read_json(Path(evaluation.path), made_by="evaluate"), config.registry.gate)
        passed = all(line.ok for line in lines)
        verdict = "the gate is met" if passed else "the gate is not met: the alias will not move"
        rows = [(line.metric, f"{line.value:.4g}", f"{line.relation} {line.bound:.4g}",
                 "met" if line.ok else "not met", f"register.gate.{line.setting}") for line in lines]  # fmt: skip
        write_page(report, "Gate", bullets([verdict]), table(("metric", "value", "wanted", "", "setting"), rows))
        report.metadata["passed"] = passed
        task.done([verdict, *map(str, lines)], {line.metric: line.value for line in lines} | {"passed": float(passed)})
    return passed


def register(
    settings: str,
    adapter: Artifact,
    training: Artifact,
    evaluation: Artifact,
    verdict: Artifact,
    dataset: Artifact,
    versioned: Artifact,
    package: Artifact,
) -> None:
    """Package the adapter and register it; fails, with the version tagged as failed, where the gate is not met."""
    inputs = {"adapter": adapter.path, "smoke": verdict.path, "dataset": dataset.path}
    with running("register", settings, keep=("reports",), **inputs) as task:
        config = task.config()
        from ocrmem.registry import register as run
        from ocrmem.versioning import VERSION

        shutil.copytree(training.path, task.report("."))
        shutil.copyfile(evaluation.path, task.report(_EVALUATION))
        if not versioned.metadata.get("skipped"):
            shutil.copyfile(Path(versioned.path) / VERSION, task.report(VERSION))

        result = run(config)
        shutil.copytree(result["package"], package.path, dirs_exist_ok=True)
        names = ("name", "version", "model_uri", "alias", "registry", "package_sha256", "adapter_sha256")
        package.metadata.update({name: value for name, value in result.items() if name in names and value is not None})
        task.done(result["summary"][:-1], {"version": float(result["version"])})
