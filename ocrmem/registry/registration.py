"""The verb `register`: package the adapter, make a version of it, judge it, move the alias.

The package's hash identifies a version, so registering the same adapter again, after a kill or by hand, finds the
version that is there; the next run completes or removes what an interrupted one has left. Success is reported when the
registry has given the package's files back and they have their hashes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypedDict

from ocrmem.adapter import check_reports, package_adapter
from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.errors import CheckFailed, ModelError, Problem
from ocrmem.evaluation.gate import GateLine, gate_lines
from ocrmem.evaluation.result import EVALUATION, METRICS, VARIANTS
from ocrmem.facts import RUN_ID
from ocrmem.files import locked, write_json
from ocrmem.json_files import Evaluation, LastRegistration, MemoryConfig, PushedVersion, read_json
from ocrmem.registry.backend import (
    ADAPTER_TAG,
    GATE_TAG,
    LORA_TAG,
    PACKAGE_TAG,
    Backend,
    Version,
    backend_of,
    registry_directory,
)
from ocrmem.registry.promotion import Promotion, figure_tag, figure_text, promotion
from ocrmem.registry.resolve import fetch_package
from ocrmem.secrets import redact_uri
from ocrmem.tracking import track
from ocrmem.verdicts import warning_lines
from ocrmem.versioning import VERSION

REGISTRATION = "registration.json"
_PATIENCE = 120.0  # seconds for another `register` in this workspace


class GateResult(TypedDict):
    """The gate's verdict, and each of its lines as `GateLine.as_dict`."""

    passed: bool
    lines: list[dict[str, Any]]


class Registration(TypedDict):
    """registration.json.

    ``warnings`` are the evaluation's, those of its dataset included. ``alias`` is None unless the version has it after
    this run, ``package_uri`` if the registry keeps the files itself, and ``wandb`` if tracking is disabled.
    """

    name: str
    version: int
    model_uri: str
    alias: str | None
    registry: str
    package: str
    package_uri: str | None
    package_sha256: str
    adapter_sha256: str
    gate: GateResult
    warnings: list[str]
    wandb: dict[str, str] | None


class RegisterResult(Registration):
    """registration.json, and lines for a person."""

    summary: list[str]


def register(config: RunConfig, run_id: str | None = None) -> RegisterResult:
    """Package the adapter, register it as a model version, and move the alias if the gate is met and it is better.

    A version whose gate is not met stays, tagged ``ocrmem.gate = failed``, and the alias does not move.

    Args:
        config: the run whose adapter and reports are registered, and the registry.
        run_id: of the pipeline run, written on a new version; None: ``OCRMEM_RUN_ID`` of the environment, if set.

    Raises:
        MissingInputError: adapter/, evaluation.json, smoke/report.json or dataset/manifest.json is missing.
        CheckFailed: the smoke test did not pass or a report is about another adapter (nothing is registered then),
            or the gate is not met.
        ConfigError: the registry cannot be used as configured.
        ModelError: the registry does not give back the package that it was given.
    """
    section = config.registry
    evaluation = read_json(config.paths.report(EVALUATION), Evaluation, made_by="evaluate")
    check_reports(config)
    gate = gate_lines(evaluation, section.gate)
    unmet, warnings = [line for line in gate if not line.ok], evaluation.get("warnings", [])

    package = registry_directory(config) / "package"
    with locked(package, "register", wait=_PATIENCE):
        provenance = package_adapter(config, package)
        judged = {figure_tag(line): figure_text(line) for line in gate}
        judged |= {GATE_TAG: "failed" if unmet else "passed", **_dataset_tag(config, provenance)}
        tags = {**_origin_tags(provenance), **_lora_tag(package), **judged}
        if run_id := run_id or os.environ.get(RUN_ID):
            tags["ocrmem.run_id"] = run_id
        with backend_of(config).open(config, write=True) as backend:
            version = backend.ensure_version(package, provenance, tags, _metrics(provenance))
            _require_files(backend, config, version, package)
            backend.tag(version, judged)
            holder = backend.holder(section.name, section.alias)
            decision = Promotion(False, "the gate is not met") if unmet else promotion(section, version, gate, holder)
            if decision.moves:
                backend.set_alias(version, section.alias)
                holder = version
        has_alias = holder is not None and holder.number == version.number
        result: Registration = {
            "name": section.name,
            "version": version.number,
            "model_uri": version.reference,
            "alias": section.alias if has_alias else None,
            "registry": redact_uri(section.uri),
            "package": package.as_posix(),
            "package_uri": version.uri if section.store else None,
            "package_sha256": provenance["package_sha256"],
            "adapter_sha256": provenance["adapter_sha256"],
            "gate": {"passed": not unmet, "lines": [line.as_dict() for line in gate]},
            "warnings": warnings,
            "wandb": _log_to_wandb(config, package, provenance, version, passed=not unmet, warnings=warnings),
        }
        write_json(config.paths.report(REGISTRATION), result)
    if unmet:
        state = f"{section.name} version {version.number} is registered as failed and {section.alias!r} did not move"
        remedy = "Train longer or improve the data; lower the bound only if the figure is good enough"
        raise CheckFailed([
            Problem(f"register.gate.{line.setting}", "; ".join([str(line), *_behind(line, result), state]), remedy)
            for line in unmet
        ])  # fmt: skip
    return {**result, "summary": _summary(result, holder, decision, config)}


def _require_files(backend: Backend, config: RunConfig, version: Version, package: Path) -> None:
    """Let the registry give the version's package back, and put its files there again where they are lost or damaged.

    Raises:
        ModelError: it does not give back what it was given.
    """
    try:
        fetch_package(backend, config, version)
    except ModelError as error:
        note(f"{version.reference}: {error.problems[0].message}; its files are put there again.")
        backend.restore(version, package)
        fetch_package(backend, config, version)


def _origin_tags(provenance: dict[str, Any]) -> dict[str, str]:
    """Return what the version is made of, which never changes."""
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


def _lora_tag(package: Path) -> dict[str, str]:
    """Return how the adapter changes the base model, if it does."""
    lora = read_json(package / "config.json", MemoryConfig, made_by="train").get("lora")
    return {LORA_TAG: f"rank {lora['rank']}, on {', '.join(lora['targets'])}"} if lora else {}


def _dataset_tag(config: RunConfig, provenance: dict[str, Any]) -> dict[str, str]:
    """Return the dataset's hash in DVC, if `version` has pushed the dataset that the adapter was trained on."""
    path = config.paths.report(VERSION)
    if not os.path.lexists(path):
        return {}
    pushed = read_json(path, PushedVersion, made_by="version")
    same = pushed["dataset_manifest_sha256"] == provenance["data"]["dataset_manifest_sha256"]
    return {"ocrmem.dataset_dvc_md5": pushed["md5"]} if same else {}


def _metrics(provenance: dict[str, Any]) -> dict[str, float]:
    """Return the figures with memory and of each baseline, and the compression ratio."""
    figures = {
        f"{variant}.{key}": float(values[key])
        for variant, values in provenance["metrics"].items()
        for key in METRICS
        if variant in VARIANTS and key in values
    }
    return {**figures, "compression_ratio": float(provenance["metrics"]["compression_ratio"])}


def _behind(line: GateLine, result: Registration) -> list[str]:
    """Return what a line of the gate only counts."""
    return result["warnings"] if line.setting == "max_warnings" else []


def _summary(result: Registration, holder: Version | None, decision: Promotion, config: RunConfig) -> list[str]:
    place, package = result["package_uri"] or result["package"], result["package_sha256"][:12]
    lines = [f"Registered {result['model_uri']} in {result['registry']} (package {package})."]
    for line in result["gate"]["lines"]:
        lines.append(f"  gate: {line['metric']} = {line['value']:.4g} {line['relation']} {line['bound']:.4g}")
    lines += warning_lines(result["warnings"])
    alias = f"models:/{result['name']}@{config.registry.alias}"
    if result["alias"]:
        moved = f" ({decision.reason})" if decision.moves and decision.reason else ""
        lines.append(f"{alias} is this version{moved}. Package: {place}")
    else:
        meant = f"stays version {holder.number}" if holder else "means no version"
        lines.append(f"{alias} {meant}: {decision.reason}. Package: {place}")
    return [*lines, f"Report: {config.paths.report('evaluation.html')}"]


def _log_to_wandb(
    config: RunConfig,
    package: Path,
    provenance: dict[str, Any],
    version: Version,
    *,
    passed: bool,
    warnings: list[str],
) -> dict[str, str] | None:
    """Log the package as a W&B artifact too, once for each package; return None with tracking disabled."""
    if config.tracking.wandb == "disabled":
        return None
    logged = {"artifact": config.registry.name, "project": config.tracking.project, "mode": config.tracking.wandb}
    path = config.paths.report(REGISTRATION)
    if os.path.lexists(path):
        before = read_json(path, LastRegistration, made_by="register")
        if before["package_sha256"] == provenance["package_sha256"] and before["wandb"] == logged:
            return logged
    metadata: dict[str, Any] = {"registry_version": version.number, "gate": "passed" if passed else "failed"}
    metadata |= {name: provenance[name] for name in ("package_sha256", "adapter_sha256", "metrics")}
    metadata["warnings"] = warnings
    with track(config, "register") as run:
        run.artifact(config.registry.name, "model", package, metadata)
    return logged
