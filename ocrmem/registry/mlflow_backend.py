"""MLflow as the registry: a sqlite file, or a server by http(s). The only module that knows MLflow."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.environment import environment
from ocrmem.errors import ConfigError, Problem
from ocrmem.extras import not_installed
from ocrmem.health import ANSWER_SECONDS
from ocrmem.registry.backend import NAME_REMEDY, PACKAGE_TAG, Backend, Version, registry_directory, sqlite_path
from ocrmem.retry import ATTEMPTS, causes
from ocrmem.secrets import redact_uri
from ocrmem.storage import DirectoryStore

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException

_ARTIFACTS = "adapter"  # folder of the package among a run's artifacts


class MlflowBackend(Backend):
    """An MLflow registry, by MLflow's client."""

    def __init__(self, client: MlflowClient, config: RunConfig) -> None:
        self._client = client
        self._config = config

    @classmethod
    @contextmanager
    def open(cls, config: RunConfig) -> Iterator[MlflowBackend]:
        database = sqlite_path(config.registry.uri)
        # A new database is made in seconds; that is worth a line.
        if database and not database.exists():
            database.parent.mkdir(parents=True, exist_ok=True)
            note(f"Making the registry database {database} (several seconds, once).")
        with _client(config) as client:
            yield cls(client, config)

    @classmethod
    def problems(cls, config: RunConfig) -> list[Problem]:
        database = sqlite_path(config.registry.uri)
        if database is not None:
            return _sqlite_problems(database)
        # A question may not wait as long as a transfer.
        patience = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(ANSWER_SECONDS), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        try:
            with environment(patience), _client(config) as client:
                client.search_experiments(max_results=1)
                client.search_registered_models(max_results=1)
        except ConfigError as error:
            return list(error.problems)
        return []

    def ensure_version(
        self, package: Path, provenance: dict[str, Any], tags: Mapping[str, str], metrics: Mapping[str, float]
    ) -> Version:
        client, name, digest = self._client, self._config.registry.name, tags[PACKAGE_TAG]
        quoted = name.replace("'", "\\'")
        found = client.search_model_versions(f"name='{quoted}' and tag.`{PACKAGE_TAG}`='{digest}'")
        if ready := [version for version in found if version.status == "READY"]:
            return _version(min(ready, key=lambda version: int(version.version)))  # the oldest of several
        # A new run holds the package and a version is made of it, complete from its first moment.
        experiment = self._experiment(name)
        for run in client.search_runs([experiment], f"tags.`{PACKAGE_TAG}` = '{digest}'"):
            # An interrupted upload: a run that a version refers to would have been found.
            client.delete_run(run.info.run_id)
        run = client.create_run(experiment, tags=dict(tags), run_name=f"{name} {digest[:12]}")
        self._log_run(run.info.run_id, provenance, metrics)
        client.log_artifacts(run.info.run_id, str(package), _ARTIFACTS)
        client.set_terminated(run.info.run_id)
        if not client.search_registered_models(f"name='{name}'"):
            client.create_registered_model(name, description="Optical memory adapters made by ocrmem")
        memory = provenance["metrics"]["memory"]
        figures = f"recall {memory['recall']:.3f} with memory, loss {memory['loss']:.4f}"
        made = client.create_model_version(
            name,
            source=f"{run.info.artifact_uri.rstrip('/')}/{_ARTIFACTS}",
            run_id=run.info.run_id,
            tags=dict(tags),
            description=f"{figures}; see README.md in the package",
        )
        return _version(made)

    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            if version.tags.get(key) != value:
                self._client.set_model_version_tag(version.name, str(version.number), key, value)

    def set_alias(self, version: Version, alias: str) -> None:
        self._client.set_registered_model_alias(version.name, alias, str(version.number))

    def by_alias(self, name: str, alias: str) -> Version:
        return _version(self._client.get_model_version_by_alias(name, alias))

    def by_number(self, name: str, number: int) -> Version:
        return _version(self._client.get_model_version(name, str(number)))

    def download(self, version: Version, directory: Path) -> None:
        from mlflow.artifacts import download_artifacts

        source = self._client.get_model_version_download_uri(version.name, str(version.number))
        uri = self._config.registry.uri
        fetched = Path(download_artifacts(artifact_uri=source, dst_path=str(directory), tracking_uri=uri))
        if fetched != directory:
            for file in fetched.iterdir():
                file.rename(directory / file.name)
            fetched.rmdir()

    def _experiment(self, name: str) -> str:
        existing = self._client.get_experiment_by_name(name)
        if existing is not None:
            return existing.experiment_id
        # A server decides where its artifacts go; those of a database file lie beside it.
        local = sqlite_path(self._config.registry.uri) is not None
        location = (registry_directory(self._config) / "artifacts").resolve().as_uri() if local else None
        return self._client.create_experiment(name, artifact_location=location)

    def _log_run(self, run_id: str, provenance: dict[str, Any], metrics: Mapping[str, float]) -> None:
        """Log metrics and flattened params of the run, which MLflow's pages compare, in one request."""
        from mlflow.entities import Metric, Param

        params = [
            Param(f"{section}.{key}", str(value))
            for section in ("model", "render", "data", "train", "evaluate")
            for key, value in provenance["params"].get(section, {}).items()
        ]
        self._client.log_batch(run_id, [Metric(name, value, 0, 0) for name, value in metrics.items()], params)


def _version(found: ModelVersion) -> Version:
    return Version(found.name, int(found.version), dict(found.tags), found.source)


@contextmanager
def _client(config: RunConfig) -> Iterator[MlflowClient]:
    uri = config.registry.uri
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # stdout is the verb's result, and the address that MLflow prints there may hold a password.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    # The default of seven tries with growing pauses waits minutes for a server that is not there.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(ATTEMPTS - 1))
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise not_installed("register", "mlflow") from None
    # The first start of a database logs every migration.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield MlflowClient(tracking_uri=uri, registry_uri=uri)
    except MlflowException as error:
        raise ConfigError(_explain(error, uri)) from None


def _explain(error: MlflowException, uri: str) -> Problem:
    from requests.exceptions import RequestException

    shown, parts = redact_uri(uri), urlsplit(uri)
    said = " ".join(str(error).split())
    hidden = ((uri, shown), (parts.netloc if "@" in parts.netloc else "", "***"), (parts.password or "", "***"))
    for secret, instead in hidden:
        said = said.replace(secret, instead) if secret else said
    chain = list(causes(error))
    if any(isinstance(cause, RequestException) for cause in chain):
        reason = getattr(chain[-1], "strerror", None) or type(chain[-1]).__name__
        message = f"the registry {shown} does not answer ({reason})"
        return Problem("register.uri", message, "Check the address, that it is up, and the network")
    missing = error.error_code == "RESOURCE_DOES_NOT_EXIST"
    credentials = "Check that it is up; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD if it asks"
    return Problem("register.uri", f"the registry {shown} answers: {said}", NAME_REMEDY if missing else credentials)


def _sqlite_problems(database: Path) -> list[Problem]:
    if not database.exists():
        # `register` makes the folder, so the nearest existing one counts.
        parent = next(folder for folder in database.absolute().parents if folder.exists())
        problem = DirectoryStore(str(parent), "register.uri").problem(write=True)
        return [problem] if problem else []
    try:
        # An immediate transaction takes the write lock and leaves the file as it was.
        address = f"{database.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=ANSWER_SECONDS)) as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            db.rollback()
    except sqlite3.Error as error:
        message = f"the registry database {database} cannot be written to ({error})"
        return [Problem("register.uri", message, "Check its owner and that nothing holds it, or name another file")]
    return []
