"""The model registry: versions of the adapter package, and an alias that moves only when the gate holds.

MLflow on sqlite by default, an MLflow server by URI. A version is known by its package hash, so registering
the same adapter again (after a kill, or by hand) finds the version that is there instead of making a second
one. The order of steps is: upload the files, create the version, move the alias, write registration.json;
whatever is cut off before the version exists is removed by the next run.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ocrmem.adapter import check_reports, package_adapter, redact_uri, verify_package
from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.errors import CheckFailed, ConfigError, ModelError, Problem
from ocrmem.evaluation.gate import GateLine, gate_lines
from ocrmem.evaluation.result import EVALUATION
from ocrmem.files import read_json, replacing_directory, sha256_json, write_json
from ocrmem.tracking import track

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

REGISTRATION = "registration.json"
PACKAGE_TAG = "ocrmem.package_sha256"
ADAPTER_TAG = "ocrmem.adapter_sha256"
GATE_TAG = "ocrmem.gate"
_REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")
_ARTIFACTS = "adapter"  # folder of the package among a run's artifacts


def register(config: RunConfig) -> dict[str, Any]:
    """Package the adapter, register it as a model version, and move the alias if the gate holds.

    A failed gate still leaves a version, tagged ``ocrmem.gate = failed``, so that what was tried is known;
    the alias stays where it was.

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
    with _client(config) as client:
        version = _find_version(client, section.name, provenance["package_sha256"])
        if version is None:
            version = _create_version(client, config, package, provenance)
        _tag_version(client, section.name, version, gate)
        if not unmet:
            client.set_registered_model_alias(section.name, section.alias, str(version.version))
    number = int(version.version)
    result: dict[str, Any] = {
        "name": section.name,
        "version": number,
        "model_uri": f"models:/{section.name}/{number}",
        "alias": None if unmet else section.alias,
        "registry": redact_uri(section.uri),
        "package": package.as_posix(),
        "package_sha256": provenance["package_sha256"],
        "adapter_sha256": provenance["adapter_sha256"],
        "gate": {"passed": not unmet, "lines": [line.as_dict() for line in gate]},
        "wandb": _log_to_wandb(config, package, provenance, number, passed=not unmet),
    }
    write_json(config.paths.report(REGISTRATION), result)
    if unmet:
        raise CheckFailed([_unmet_problem(line, config, number) for line in unmet])
    return {**result, "summary": _summary(result, config)}


def resolve_adapter(reference: str, config: RunConfig) -> Path:
    """The local directory of an adapter.

    Args:
        reference: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, or a directory.
        config: says which registry ``models:/`` means.

    Returns:
        The directory itself, or the registered package, downloaded beside the registry and verified.

    Raises:
        ConfigError: the reference has no form of these, or names no directory, version or alias.
        ModelError: a package's files are not what its provenance or the registry says.
    """
    if not reference.startswith("models:"):
        directory = Path(reference)
        if not directory.is_dir():
            raise ConfigError.of(
                "--adapter",
                f"{reference!r} is no directory",
                "Give an adapter directory or models:/NAME@ALIAS",
            )
        return directory
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ConfigError.of(
            "--adapter", f"{reference!r} names no version", "Write models:/NAME@ALIAS or models:/NAME/VERSION"
        )
    with _client(config) as client:
        if match["alias"]:
            version = client.get_model_version_by_alias(match["name"], match["alias"])
        else:
            version = client.get_model_version(match["name"], match["version"])
        return _download(client, config, version)


def registry_directory(config: RunConfig) -> Path:
    """Where local files of the registry are: beside the sqlite file, or ``registry/`` for a server."""
    database = _sqlite_path(config.register_.uri)
    return database.parent if database else Path("registry")


@contextmanager
def _client(config: RunConfig) -> Iterator[MlflowClient]:
    """An MLflow client; its errors become ours, with the URI's user and password taken out of the text."""
    uri = config.register_.uri
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # stdout is the verb's result, and the address that MLflow prints there may hold a password.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    # The default of seven tries with growing pauses waits minutes for a server that is not there.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise ConfigError.of("register", "mlflow is not installed", "Run: pip install 'ocrmem[registry]'") from None
    # The first start of a database logs every migration.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    database = _sqlite_path(uri)
    if database and not database.exists():
        database.parent.mkdir(parents=True, exist_ok=True)
        note(f"Making the registry database {database} (several seconds, once).")
    try:
        yield MlflowClient(tracking_uri=uri, registry_uri=uri)
    except MlflowException as error:
        missing = error.error_code == "RESOURCE_DOES_NOT_EXIST"
        raise ConfigError.of(
            "register.uri",
            f"the registry {redact_uri(uri)} answers: {_scrub(str(error), uri)}",
            "Check the name, the alias and the version; `ocrmem register` makes them"
            if missing
            else "Check that it is up; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD if it asks",
        ) from None


def _find_version(client: MlflowClient, name: str, package_sha256: str) -> ModelVersion | None:
    """The version that holds this package, if there is one; the oldest of several."""
    quoted = name.replace("'", "\\'")
    found = client.search_model_versions(f"name='{quoted}' and tag.`{PACKAGE_TAG}`='{package_sha256}'")
    ready = [version for version in found if version.status == "READY"]
    return min(ready, key=lambda version: int(version.version), default=None)


def _create_version(client: MlflowClient, config: RunConfig, package: Path, provenance: dict[str, Any]) -> ModelVersion:
    """Upload the package in a new run and make a version of it, complete from its first moment."""
    name, digest = config.register_.name, provenance["package_sha256"]
    experiment = _experiment(client, config)
    for run in client.search_runs([experiment], f"tags.`{PACKAGE_TAG}` = '{digest}'"):
        # No version refers to it, or it would have been found: an interrupted upload.
        client.delete_run(run.info.run_id)
    tags = {PACKAGE_TAG: digest, ADAPTER_TAG: provenance["adapter_sha256"], **_origin_tags(provenance)}
    run = client.create_run(experiment, tags=tags, run_name=f"{name} {digest[:12]}")
    _log_run(client, run.info.run_id, provenance)
    client.log_artifacts(run.info.run_id, str(package), _ARTIFACTS)
    client.set_terminated(run.info.run_id)
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name, description="Optical memory adapters made by ocrmem")
    return client.create_model_version(
        name,
        source=f"{run.info.artifact_uri.rstrip('/')}/{_ARTIFACTS}",
        run_id=run.info.run_id,
        tags=tags,
        description=_description(provenance),
    )


def _experiment(client: MlflowClient, config: RunConfig) -> str:
    name = config.register_.name
    existing = client.get_experiment_by_name(name)
    if existing is not None:
        return existing.experiment_id
    # A server knows where its artifacts go; a database file keeps them beside itself.
    local = _sqlite_path(config.register_.uri) is not None
    location = (registry_directory(config) / "artifacts").resolve().as_uri() if local else None
    return client.create_experiment(name, artifact_location=location)


def _log_run(client: MlflowClient, run_id: str, provenance: dict[str, Any]) -> None:
    """Metrics and flattened params of the run, as MLflow's pages compare them, in one request."""
    from mlflow.entities import Metric, Param

    figures = {
        f"{variant}.{key}": values[key]
        for variant, values in provenance["metrics"].items()
        if isinstance(values, dict) and "recall" in values
        for key in ("loss", "recall")
    }
    figures["compression_ratio"] = provenance["metrics"]["compression_ratio"]
    settings = {
        f"{section}.{key}": value
        for section in ("model", "render", "data", "train", "evaluate")
        for key, value in provenance["params"].get(section, {}).items()
    }
    client.log_batch(
        run_id,
        metrics=[Metric(name, float(value), 0, 0) for name, value in figures.items()],
        params=[Param(name, str(value)) for name, value in settings.items()],
    )


def _origin_tags(provenance: dict[str, Any]) -> dict[str, str]:
    tags = {
        "ocrmem.base_model": provenance["params"]["model"]["base_model_name"],
        "ocrmem.encoder": provenance["params"]["model"]["ocr_model_name"],
        "ocrmem.data_sha256": str(provenance["data"]["source_sha256"]),
        "ocrmem.gradient_report_sha256": provenance["gradient_report_sha256"],
    }
    if provenance["git"]["commit"]:
        tags["ocrmem.git_commit"] = provenance["git"]["commit"]
        tags["ocrmem.git_dirty"] = str(provenance["git"]["dirty"]).lower()
    return tags


def _tag_version(client: MlflowClient, name: str, version: ModelVersion, gate: list[GateLine]) -> None:
    """Write down how the version stands before the gate of now."""
    tags = {f"ocrmem.{line.metric.replace(' - ', '-')}": f"{line.value:.6g}" for line in gate}
    tags[GATE_TAG] = "passed" if all(line.ok for line in gate) else "failed"
    for key, value in tags.items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(name, str(version.version), key, value)


def _description(provenance: dict[str, Any]) -> str:
    memory = provenance["metrics"]["memory"]
    return f"recall {memory['recall']:.3f} with memory, loss {memory['loss']:.4f}; see README.md in the package"


def _download(client: MlflowClient, config: RunConfig, version: ModelVersion) -> Path:
    """The version's package in a local folder, which is used again while its files are what they were."""
    from mlflow.artifacts import download_artifacts

    uri = config.register_.uri
    key = sha256_json([uri, version.name, int(version.version)])[:16]
    target = registry_directory(config) / "cache" / key
    wanted = version.tags.get(PACKAGE_TAG)
    if target.is_dir() and _is_package(target, wanted):
        return target
    source = client.get_model_version_download_uri(version.name, version.version)
    with replacing_directory(target) as directory:
        fetched = Path(download_artifacts(artifact_uri=source, dst_path=str(directory), tracking_uri=uri))
        for file in fetched.iterdir() if fetched != directory else ():
            file.rename(directory / file.name)
        if fetched != directory:
            fetched.rmdir()
        _verified(directory, wanted, f"models:/{version.name}/{version.version}")
    return target


def _is_package(directory: Path, package_sha256: str | None) -> bool:
    try:
        return verify_package(directory).get("package_sha256") == package_sha256
    except ModelError:
        return False


def _verified(directory: Path, package_sha256: str | None, place: str) -> None:
    found = verify_package(directory).get("package_sha256")
    if found != package_sha256:
        raise ModelError.of(
            place,
            f"the registry says package {package_sha256}, but its files are package {found}",
            "Register the adapter again and use that version",
        )


def _sqlite_path(uri: str) -> Path | None:
    """The file of ``sqlite:///relative`` or ``sqlite:////absolute``; None for any other registry."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _scrub(text: str, uri: str) -> str:
    parts = urlsplit(uri)
    for secret in (uri, parts.netloc if "@" in parts.netloc else "", parts.password or ""):
        if secret:
            text = text.replace(secret, redact_uri(uri) if secret == uri else "***")
    return " ".join(text.split())


def _unmet_problem(line: GateLine, config: RunConfig, number: int) -> Problem:
    section = config.register_
    return Problem(
        f"register.gate.{line.setting}",
        f"{line}; {section.name} version {number} is registered as failed and {section.alias!r} did not move",
        "Train longer or mend the data; lower the bound only if the figure is good enough",
    )


def _summary(result: dict[str, Any], config: RunConfig) -> list[str]:
    lines = [f"Registered {result['model_uri']} in {result['registry']} (package {result['package_sha256'][:12]})."]
    lines += [f"  gate: {line['metric']} = {line['value']:.4g} {line['relation']} {line['bound']:.4g}"
              for line in result["gate"]["lines"]]  # fmt: skip
    lines.append(f"models:/{result['name']}@{result['alias']} is this version. Package: {result['package']}")
    lines.append(f"Report: {config.paths.report('evaluation.html')}")
    return lines


def _log_to_wandb(
    config: RunConfig, package: Path, provenance: dict[str, Any], version: int, *, passed: bool
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
        "mlflow_version": version,
        "gate": "passed" if passed else "failed",
        "package_sha256": provenance["package_sha256"],
        "adapter_sha256": provenance["adapter_sha256"],
        "metrics": provenance["metrics"],
    }
    with track(config, "register") as run:
        run.artifact(config.register_.name, "model", package, metadata)
    return logged
