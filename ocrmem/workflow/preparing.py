"""The tasks from settings and conversations to features: one function a component.

Each takes its settings and artifacts; inputs are only read. Heavy modules are imported once the
settings are known to be good, so a fault in them is told at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ocrmem.config import TINY, RunConfig
from ocrmem.dataset.manifest import read_manifest, source_identity
from ocrmem.errors import DataError
from ocrmem.facts import MANIFEST
from ocrmem.files import sha256_file, write_json
from ocrmem.workflow.data import first_conversations
from ocrmem.workflow.pages import bullets, table, write_page
from ocrmem.workflow.sections import OF_STEP, settings_of
from ocrmem.workflow.task import Artifact, copy_file, flat, log_metrics, running


def validate(params: str, overrides: Sequence[str], data: str, report: Artifact) -> dict[str, str]:
    """Check settings and data.

    Args:
        params: the text of params.yaml.
        overrides: ``key.path=value``, as for ``--set``.

    Returns:
        the settings of every other task, by step, and "data_sha256", which tells the tasks that read ``data``, and
        their caches, what it held.
    """
    with running("validate", params, overrides, data=data) as task:
        from ocrmem.validation import validate_file

        result = validate_file(task.params, task.overrides)
        digest = source_identity(task.config())["sha256"]
        task.done(result["summary"], flat(result, "longest_history_tokens"))
        write_page(report, "Settings and data", bullets(result["summary"]))
        report.metadata["data_sha256"] = digest
        given = RunConfig.load(task.params, overrides)  # without this task's directories
        handed = {step: settings_of(given, step) for step in OF_STEP}
    return {"data_sha256": digest, **handed}


def preflight(settings: str, launcher: str, report: Artifact) -> None:
    """Check secrets, registry, runtime and quota before a GPU is asked for."""
    with running("preflight", settings) as task:
        config = task.config()
        from ocrmem.readiness import preflight as check

        summary = check(config, launcher)["summary"]
        task.done(summary)
        write_page(report, "Preflight", bullets(summary))


def base(settings: str, models: Artifact) -> None:
    """Build the tiny models, or load the named ones once."""
    with running("base", settings, models=models.path) as task:
        config = task.config()
        from ocrmem.model.base import build_base

        result = build_base(config)
        Path(models.path).mkdir(parents=True, exist_ok=True)  # with real names the verb writes nothing
        named = config.model
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
    settings: str,
    data: str,
    data_sha256: str,
    conversations: int,
    dataset: Artifact,
    metrics: Artifact,
) -> None:
    """Draw conversations on pages; of each file the first ``conversations`` only, unless that is 0."""
    with running("render", settings, data=data, dataset=dataset.path) as task:
        config = task.config()
        _require_same_data(config, data_sha256)
        if conversations:
            slice_ = first_conversations(Path(config.data.path), task.scratch / "slice", conversations)
            config = config.model_copy(update={"data": config.data.model_copy(update={"path": str(slice_)})})
        from ocrmem.dataset.build import build_dataset

        result = build_dataset(config)
        dataset.metadata.update(_dataset_metadata(Path(dataset.path)), conversations_a_file=conversations)
        figures = flat(result, "conversations", "pages", "compression_ratio") | flat(
            read_manifest(Path(dataset.path))["counts"],
            "unique_pages", "history_tokens", "memory_tokens", "dropped_pages", "dropped_tokens",
        )  # fmt: skip
        log_metrics(metrics, figures)
        task.done(result["summary"][:-1], figures)


def check(settings: str, dataset: Artifact, checks: Artifact, report: Artifact) -> None:
    """Check the dataset's quality."""
    with running("check", settings, dataset=dataset.path, checks=checks.path, keep=("checks",)) as task:
        config = task.config()
        from ocrmem.dataset.quality import check_dataset

        result = check_dataset(config)
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


def encode(settings: str, dataset: Artifact, models: Artifact, features: Artifact) -> None:
    """Encode each page once."""
    with running("encode", settings, dataset=dataset.path, models=models.path, features=features.path) as task:
        config = task.config()
        from ocrmem.encoder.encode import encode_dataset

        result = encode_dataset(config)
        manifest = result["manifest"]
        features.metadata.update(
            encoder=manifest["encoder"],
            weights_sha256=manifest["weights_sha256"],
            dataset_pages_sha256=manifest["dataset_pages_sha256"],
            pages=result["pages"],
            dtype=manifest["dtype"],
        )
        task.done(result["summary"], flat(result, "pages", "encoded"))


def smoke(
    settings: str,
    dataset: Artifact,
    models: Artifact,
    features: Artifact,
    verdict: Artifact,
    report: Artifact,
) -> None:
    """Show that gradients reach proj, and nothing else."""
    inputs = {"dataset": dataset.path, "models": models.path, "features": features.path}
    with running("smoke", settings, smoke=verdict.path, keep=("smoke",), **inputs) as task:
        config = task.config()
        from ocrmem.smoke_test import smoke as run

        result = run(config)
        written = Path(verdict.path)
        copy_file(written / "report.html", report)
        verdict.metadata.update(
            ok=result["ok"], report_sha256=sha256_file(written / "report.json"), memory_from=result["memory_from"]
        )
        task.done(result["trainable_parameters"], flat(result, "loss", "loss_with_other_pages"))


def version(settings: str, dataset: Artifact, versioned: Artifact, report: Artifact) -> None:
    """Put the dataset under version control and push it to ``version.remote``, if there is one.

    Args:
        versioned: a directory with version.json and dataset.dvc.
    """
    with running("version", settings, dataset=dataset.path) as task:
        config = task.config()
        from ocrmem.versioning import VERSION, version_dataset

        written = Path(versioned.path)
        if config.version.remote is None:
            reason = "version.remote is not configured, so the dataset was pushed nowhere"
            write_json(written / VERSION, {"skipped": reason})
            versioned.metadata["skipped"] = True
            write_page(report, "Version of the dataset", bullets([reason]))
            task.skip(reason)
            return
        result = version_dataset(config)
        written.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(task.report(VERSION), written / VERSION)
        shutil.copyfile(result["dvc_file"], written / "dataset.dvc")
        told = ("md5", "files", "bytes", "remote", "dataset_manifest_sha256")
        versioned.metadata.update({n: value for n, value in result.items() if n in told}, skipped=False)
        write_page(report, "Version of the dataset", bullets(result["summary"]))
        task.done(result["summary"][:2], flat(result, "files", "bytes", "pushed"))


def _require_same_data(config: RunConfig, sha256: str) -> None:
    found = source_identity(config)["sha256"]
    if found != sha256:
        raise DataError.of(
            config.data.path,
            f"is not what was validated: sha256 {found[:12]}, then {sha256[:12]}",
            "Leave the data alone while a run reads it, and start the run again",
        )


def _dataset_metadata(directory: Path) -> dict[str, Any]:
    manifest = read_manifest(directory)
    counts = manifest["counts"]
    return {
        "manifest_sha256": sha256_file(directory / MANIFEST),
        "source_sha256": manifest["source"]["sha256"],
        "conversations": counts["conversations"],
        "unique_pages": counts["unique_pages"],
        "compression_ratio": round(counts["history_tokens"] / counts["memory_tokens"], 4),
        **{f"samples_{split}": count for split, count in counts["samples"].items()},
    }
