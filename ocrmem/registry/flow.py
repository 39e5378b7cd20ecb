"""The verb `register`: package the adapter, make a version of it, judge it, move the alias.

A version is known by its package hash, so registering the same adapter again (after a kill, or by hand) finds
the version that is there instead of making a second one. The order of steps is: store the files, make the
version, move the alias, write registration.json; whatever was cut off is completed or removed by the next run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ocrmem.adapter import check_reports, package_adapter
from ocrmem.config import RunConfig
from ocrmem.errors import CheckFailed, Problem
from ocrmem.evaluation.gate import GateLine, gate_lines
from ocrmem.evaluation.result import EVALUATION
from ocrmem.files import read_json, write_json
from ocrmem.registry.backend import ADAPTER_TAG, GATE_TAG, PACKAGE_TAG, Version, open_backend, registry_directory
from ocrmem.secrets import redact_uri
from ocrmem.tracking import track
from ocrmem.versioning import VERSION

REGISTRATION = "registration.json"
RUN_ID = "OCRMEM_RUN_ID"


def register(config: RunConfig, run_id: str | None = None) -> dict[str, Any]:
    """Package the adapter, register it as a model version, and move the alias if the gate holds.

    A failed gate still leaves a version, tagged ``ocrmem.gate = failed``, so that what was tried is known;
    the alias stays where it was.

    Args:
        config: the run whose adapter and reports are registered, and where.
        run_id: of the pipeline run that this belongs to, written on a new version; None: the environment's
            ``OCRMEM_RUN_ID``, if there is one.

    Returns:
        What registration.json holds, and ``summary``.

    Raises:
        MissingInputError: adapter/, evaluation.json, smoke/report.json or dataset/manifest.json is not there.
        CheckFailed: the smoke test did not pass, a report is about another adapter (nothing
            is registered then), or the gate is not met.
        ConfigError: the registry cannot be used as configured.
    """
    section = config.register_
    evaluation = read_json(config.paths.report(EVALUATION), made_by="evaluate")
    check_reports(config)
    gate = gate_lines(evaluation, section.gate)
    unmet = [line for line in gate if not line.ok]

    package = registry_directory(config) / "package"
    provenance = package_adapter(config, package)
    judged = {**_gate_tags(gate), **_dataset_tag(config, provenance)}
    tags = {**_origin_tags(provenance), **judged}
    if run_id := run_id or os.environ.get(RUN_ID):
        tags["ocrmem.run_id"] = run_id
    with open_backend(config) as backend:
        version = backend.ensure_version(package, provenance, tags, _metrics(provenance))
        backend.tag(version, judged)
        if not unmet:
            backend.set_alias(version, section.alias)
    result: dict[str, Any] = {
        "name": section.name,
        "version": version.number,
        "model_uri": version.reference,
        "alias": None if unmet else section.alias,
        "registry": redact_uri(section.uri),
        "package": package.as_posix(),
        "package_uri": version.uri if section.store else None,
        "package_sha256": provenance["package_sha256"],
        "adapter_sha256": provenance["adapter_sha256"],
        "gate": {"passed": not unmet, "lines": [line.as_dict() for line in gate]},
        "wandb": _log_to_wandb(config, package, provenance, version, passed=not unmet),
    }
    write_json(config.paths.report(REGISTRATION), result)
    if unmet:
        raise CheckFailed([_unmet_problem(line, config, version) for line in unmet])
    return {**result, "summary": _summary(result, config)}


def _origin_tags(provenance: dict[str, Any]) -> dict[str, str]:
    """What the version is made of; none of it changes after it was made."""
    tags = {
        PACKAGE_TAG: provenance["package_sha256"],
        ADAPTER_TAG: provenance["adapter_sha256"],
        "ocrmem.base_model": provenance["params"]["model"]["base_model_name"],
        "ocrmem.encoder": provenance["params"]["model"]["ocr_model_name"],
        "ocrmem.data_sha256": str(provenance["data"]["source_sha256"]),
        "ocrmem.dataset_manifest_sha256": provenance["data"]["dataset_manifest_sha256"],
        "ocrmem.gradient_report_sha256": provenance["gradient_report_sha256"],
    }
    if provenance["git"]["commit"]:
        tags["ocrmem.git_commit"] = provenance["git"]["commit"]
        tags["ocrmem.git_dirty"] = str(provenance["git"]["dirty"]).lower()
    return tags


def _gate_tags(gate: list[GateLine]) -> dict[str, str]:
    """How the version stands before the gate of now."""
    tags = {f"ocrmem.{line.metric.replace(' - ', '-')}": f"{line.value:.6g}" for line in gate}
    tags[GATE_TAG] = "passed" if all(line.ok for line in gate) else "failed"
    return tags


def _dataset_tag(config: RunConfig, provenance: dict[str, Any]) -> dict[str, str]:
    """The hash by which DVC has the dataset, if `version` has pushed the one that the adapter was trained on."""
    path = config.paths.report(VERSION)
    pushed = read_json(path, made_by="version") if path.exists() else {}
    if pushed.get("dataset_manifest_sha256") != provenance["data"]["dataset_manifest_sha256"]:
        return {}
    return {"ocrmem.dataset_dvc_md5": pushed["md5"]}


def _metrics(provenance: dict[str, Any]) -> dict[str, float]:
    """Loss and recall with memory and of each baseline, and the compression ratio."""
    figures = {
        f"{variant}.{key}": float(values[key])
        for variant, values in provenance["metrics"].items()
        if isinstance(values, dict) and "recall" in values
        for key in ("loss", "recall")
    }
    return {**figures, "compression_ratio": float(provenance["metrics"]["compression_ratio"])}


def _unmet_problem(line: GateLine, config: RunConfig, version: Version) -> Problem:
    section = config.register_
    return Problem(
        f"register.gate.{line.setting}",
        f"{line}; {section.name} version {version.number} is registered as failed and {section.alias!r} did not move",
        "Train longer or mend the data; lower the bound only if the figure is good enough",
    )


def _summary(result: dict[str, Any], config: RunConfig) -> list[str]:
    lines = [f"Registered {result['model_uri']} in {result['registry']} (package {result['package_sha256'][:12]})."]
    lines += [f"  gate: {line['metric']} = {line['value']:.4g} {line['relation']} {line['bound']:.4g}"
              for line in result["gate"]["lines"]]  # fmt: skip
    place = result["package_uri"] or result["package"]
    lines.append(f"models:/{result['name']}@{result['alias']} is this version. Package: {place}")
    lines.append(f"Report: {config.paths.report('evaluation.html')}")
    return lines


def _log_to_wandb(
    config: RunConfig, package: Path, provenance: dict[str, Any], version: Version, *, passed: bool
) -> dict[str, str] | None:
    """Log the package as a W&B artifact too, once for each package; None with tracking disabled."""
    if config.tracking.wandb == "disabled":
        return None
    logged = {
        "artifact": config.register_.name,
        "project": config.tracking.project,
        "mode": config.tracking.wandb,
    }
    path = config.paths.report(REGISTRATION)
    before = read_json(path, made_by="register") if path.exists() else {}
    if before.get("package_sha256") == provenance["package_sha256"] and before.get("wandb") == logged:
        return logged
    metadata = {
        "registry_version": version.number,
        "gate": "passed" if passed else "failed",
        "package_sha256": provenance["package_sha256"],
        "adapter_sha256": provenance["adapter_sha256"],
        "metrics": provenance["metrics"],
    }
    with track(config, "register") as run:
        run.artifact(config.register_.name, "model", package, metadata)
    return logged
