"""The tasks of the pipelines: one function a component, named after its step.

Each takes its settings and artifacts, and only reads the inputs.
"""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path

from ocrmem.config import TINY, RunConfig
from ocrmem.dataset.manifest import read_manifest, source_identity
from ocrmem.errors import DataError
from ocrmem.evaluation.result import EVALUATION
from ocrmem.facts import MANIFEST, SMOKE_REPORT
from ocrmem.files import sha256_file, write_json
from ocrmem.json_files import Evaluation, read_json
from ocrmem.steps import STEPS, TASKS
from ocrmem.verdicts import warning_lines
from ocrmem.versioning import VERSION
from ocrmem.workflow.markdown import bullets, table, write_page
from ocrmem.workflow.staging import first_conversations
from ocrmem.workflow.task import Artifact, copy_file, flat, log_metrics, running


def validate(params: str, overrides: Sequence[str], data: str, report: Artifact) -> tuple[str, ...]:
    """Check settings and data.

    Args:
        params: the text of params.yaml.
        overrides: ``key.path=value``, as for ``--set``.

    Returns:
        A named tuple: the settings of every other task, by step, and ``data_sha256``, by which the tasks that read
        ``data``, and their caches, know what it held.
    """
    with running("validate", params, overrides, data=data) as task:
        from ocrmem.validation import validate_file

        result = validate_file(task.params, task.overrides)
        task.record.warnings = result["warnings"]
        digest = source_identity(task.config())["sha256"]
        task.done(result["summary"], flat(result, "longest_history_tokens"))
        write_page(report, "Settings and data", bullets(result["summary"]))
        report.metadata["data_sha256"] = digest
        given = RunConfig.load(task.params, overrides)  # without this task's directories
    handed = {step: handed_settings(given, step) for step in TASKS if step != "validate"} | {"data_sha256": digest}
    return namedtuple("Validated", handed)(**handed)


def handed_settings(config: RunConfig, step: str) -> str:
    """Return the settings of a task as one line of JSON, which `RunConfig.load` reads as the YAML it is."""
    return json.dumps(STEPS[step].handed_settings(config.as_dict()), ensure_ascii=False, sort_keys=True)


def preflight(settings: str, launcher: str, report: Artifact) -> None:
    """Check secrets, registry, runtime and quota before requesting a GPU."""
    with running("preflight", settings) as task:
        summary = task.run(launcher=launcher)["summary"]
        task.done(summary, headline=f"{len(summary)} checks passed")
        write_page(report, "Preflight", bullets(summary))


def base(settings: str, models: Artifact) -> None:
    """Build the tiny models, or load the named ones once."""
    with running("base", settings, models=models) as task:
        result = task.run()
        Path(models.path).mkdir(parents=True, exist_ok=True)  # with real names the verb writes nothing
        named = task.config().model
        models.metadata.update(
            base_model=named.base_model_name,
            base_revision=named.base_revision or "",
            encoder=named.ocr_model_name,
            encoder_revision=named.ocr_revision or "",
        )
        if named.base_model_name == TINY:
            models.metadata.update({f"{part}_sha256": result[part]["sha256"] for part in ("encoder", "language_model")})
        task.done(result["summary"])


def render(
    settings: str, data: str, data_sha256: str, conversations: int, dataset: Artifact, metrics: Artifact
) -> None:
    """Draw conversations on pages; of each file the first ``conversations`` only, unless that is 0."""
    with running("render", settings, data=data, dataset=dataset) as task:
        config = task.config()
        _require_same_data(config, data_sha256)
        if conversations:
            slice_ = first_conversations(Path(config.data.path), task.scratch / "slice", conversations)
            task.overrides.append(f"data.path={json.dumps(str(slice_))}")
        result = task.run()
        manifest = read_manifest(Path(dataset.path))
        counts = manifest["counts"]
        dataset.metadata.update(
            manifest_sha256=sha256_file(Path(dataset.path) / MANIFEST),
            source_sha256=manifest["source"]["sha256"],
            conversations=counts["conversations"],
            unique_pages=counts["unique_pages"],
            compression_ratio=round(counts["history_tokens"] / counts["memory_tokens"], 4),
            conversations_a_file=conversations,
            **{f"samples_{split}": count for split, count in counts["samples"].items()},
        )
        figures = flat(result, "conversations", "pages", "compression_ratio") | flat(
            counts, "unique_pages", "history_tokens", "memory_tokens", "dropped_pages", "dropped_tokens"
        )
        log_metrics(metrics, figures)
        task.done(result["summary"][:-1], figures)


def check(settings: str, dataset: Artifact, checks: Artifact, report: Artifact) -> None:
    """Check the dataset's quality."""
    with running("check", settings, dataset=dataset, checks=checks, keep=("checks",)) as task:
        result = task.run()
        outcomes = result["expectations"]
        checks.metadata.update(dataset_manifest_sha256=result["dataset"]["manifest_sha256"], expectations=len(outcomes))
        rows = [(one["name"], one["checked"], one["failed"], one["meaning"]) for one in outcomes]
        write_page(
            report,
            "Quality of the dataset",
            bullets(result["summary"][:-1]),
            table(("expectation", "checked", "failed", "meaning"), rows),
        )
        task.done(result["summary"][:-1], flat(result["figures"], "compression_ratio.mean", "ink_share.mean"))


def version(settings: str, dataset: Artifact, versioned: Artifact, report: Artifact) -> None:
    """Put the dataset under version control and push it to ``version.remote``, if there is one.

    Args:
        versioned: a directory with version.json and dataset.dvc.
    """
    with running("version", settings, dataset=dataset) as task:
        written = Path(versioned.path)
        if task.config().version.remote is None:
            reason = "version.remote is not configured, so the dataset was pushed nowhere"
            write_json(written / VERSION, {"skipped": reason})
            versioned.metadata["skipped"] = True
            write_page(report, "Version of the dataset", bullets([reason]))
            task.skip(reason)
            return
        result = task.run()
        written.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(task.report(VERSION), written / VERSION)
        shutil.copyfile(result["dvc_file"], written / "dataset.dvc")
        names = ("md5", "files", "bytes", "remote", "dataset_manifest_sha256")
        versioned.metadata.update({name: result[name] for name in names}, skipped=False)
        write_page(report, "Version of the dataset", bullets(result["summary"]))
        task.done(result["summary"][:2], flat(result, "files", "bytes", "pushed"))


def encode(settings: str, dataset: Artifact, models: Artifact, features: Artifact) -> None:
    """Encode each page once."""
    with running("encode", settings, dataset=dataset, models=models, features=features) as task:
        result = task.run()
        names = ("encoder", "weights_sha256", "dataset_pages_sha256", "dtype")
        features.metadata.update({name: result["manifest"][name] for name in names}, pages=result["pages"])
        task.done(result["summary"], flat(result, "pages", "encoded"))


def smoke(
    settings: str, dataset: Artifact, models: Artifact, features: Artifact, verdict: Artifact, report: Artifact
) -> None:
    """Show that gradients reach proj, and nothing else."""
    with running(
        "smoke", settings, dataset=dataset, models=models, features=features, smoke=verdict, keep=("smoke",)
    ) as task:
        result = task.run()
        written = Path(verdict.path)
        copy_file(written / "report.html", report)
        verdict.metadata.update(
            ok=result["ok"], report_sha256=sha256_file(written / SMOKE_REPORT), memory_from=result["memory_from"]
        )
        figures = flat(result, "loss", "loss_with_other_pages")
        said = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in figures.items())
        lines = [*warning_lines(result["warnings"]), *result["trainable_parameters"]]
        task.done(lines, figures, headline=f"gradients reach proj and nothing else; {said}")


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
    """Train proj, resuming from the run's newest checkpoint if an earlier try left one.

    Args:
        launcher: ``local``: in this pod, on as many processes as ``train.processes`` says; ``kubernetes``: in a
            TrainJob, which this task follows.
        training: a directory with train.json and plots/train.csv.
    """
    with running("train", settings, dataset=dataset, models=models, features=features, adapter=adapter) as task:
        if launcher == "kubernetes":
            from ocrmem.workflow.training_job import train_in_job

            result = train_in_job(task.config(), task.report("."))
        else:
            result = task.run(resume=True)
        task.record.warnings = result.get("warnings", [])
        shutil.copytree(task.report("."), training.path, dirs_exist_ok=True)
        figures = flat(result, "loss.first", "loss.last", "steps", "tokens", "seconds")
        adapter.metadata.update(
            {name: result[name] for name in ("adapter_sha256", "parameters", "steps")}
            | {name: value for name, value in figures.items() if name.startswith("loss.")}
        )
        log_metrics(metrics, figures)
        loss = f"loss {figures['loss.first']:.4f} -> {figures['loss.last']:.4f}, " if "loss.last" in figures else ""
        task.done(result["summary"], figures, headline=f"{loss}{result['steps']} steps in {result['seconds']} s")


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
    with running("evaluate", settings, adapter=adapter, dataset=dataset, models=models, features=features) as task:
        shutil.copytree(training.path, task.report("."))  # the curve of the loss is drawn into the report
        result = task.run()
        from ocrmem.evaluation.evaluate import REPORT
        from ocrmem.evaluation.result import METRICS, VARIANTS

        copy_file(task.report(EVALUATION), evaluation)
        copy_file(task.report(REPORT), report)
        names = ("adapter_sha256", "dataset_manifest_sha256")
        evaluation.metadata.update({name: result[name] for name in names})
        figures = flat(result, *(f"{name}.{key}" for name in VARIANTS for key in METRICS), "compression_ratio")
        log_metrics(metrics, figures)
        task.done(result["summary"][:-1], figures)


def gate(settings: str, evaluation: Artifact, report: Artifact) -> bool:
    """Compare evaluation.json with ``register.gate`` and show it; `register` acts on it.

    Returns:
        Whether every line is met.
    """
    with running("gate", settings) as task:
        bounds = task.config().registry.gate
        found = read_json(Path(evaluation.path), Evaluation, made_by="evaluate")
        task.record.warnings = found.get("warnings", [])
        lines = STEPS["gate"].load()(found, bounds)
        passed = all(line.ok for line in lines)
        verdict = "the gate is met" if passed else "the gate is not met: the alias will not move"
        rows = [(line.metric, f"{line.value:.4g}", f"{line.relation} {line.bound:.4g}",
                 "met" if line.ok else "not met", f"register.gate.{line.setting}") for line in lines]  # fmt: skip
        said = [verdict, *warning_lines(task.record.warnings)]
        write_page(report, "Gate", bullets(said), table(("metric", "value", "wanted", "", "setting"), rows))
        report.metadata["passed"] = passed
        task.done([*said, *map(str, lines)], {line.metric: line.value for line in lines} | {"passed": float(passed)})
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
    """Package the adapter and register it; fail, with the version tagged as failed, where the gate is not met."""
    with running("register", settings, adapter=adapter, smoke=verdict, dataset=dataset, keep=("reports",)) as task:
        shutil.copytree(training.path, task.report("."))
        shutil.copyfile(evaluation.path, task.report(EVALUATION))
        if not versioned.metadata.get("skipped"):
            shutil.copyfile(Path(versioned.path) / VERSION, task.report(VERSION))
        result = task.run()
        shutil.copytree(result["package"], package.path, dirs_exist_ok=True)
        names = ("name", "version", "model_uri", "alias", "registry", "package_sha256", "adapter_sha256")
        package.metadata.update({name: result[name] for name in names if result.get(name) is not None})
        task.done(result["summary"][:-1], {"version": float(result["version"])})


def _require_same_data(config: RunConfig, sha256: str) -> None:
    found = source_identity(config)["sha256"]
    if found != sha256:
        raise DataError.of(
            config.data.path,
            f"is not what was validated: sha256 {found[:12]}, then {sha256[:12]}",
            "Leave the data alone while a run reads it, and start the run again",
        )
