"""MLflow as the registry: a sqlite file, or a server by http(s). The only module that knows MLflow."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ocrmem.config import RunConfig
from ocrmem.environment import environment
from ocrmem.errors import ConfigError, Problem, first_line
from ocrmem.extras import not_installed
from ocrmem.facts import PROVENANCE
from ocrmem.health import ANSWER_SECONDS
from ocrmem.registry.backend import NAME_REMEDY, PACKAGE_TAG, Backend, Version
from ocrmem.registry.mlflow_database import PACKAGE_FOLDER, DatabaseFile, Schema, State
from ocrmem.retry import ATTEMPTS, causes
from ocrmem.secrets import redact, redact_uri
from ocrmem.storage import DirectoryStore

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

_SQL_LOGGER = "mlflow.store.db.utils"


class MlflowBackend(Backend):
    """An MLflow registry, by MLflow's client."""

    def __init__(self, client: MlflowClient, config: RunConfig, database: DatabaseFile | None) -> None:
        self._client = client
        self._config = config
        self._database = database

    @classmethod
    @contextmanager
    def open(cls, config: RunConfig, *, write: bool = False) -> Iterator[MlflowBackend]:
        uri = config.registry.uri
        database = DatabaseFile.of(uri)
        with _mlflow(uri, database) as client_class:
            if database is not None and write:
                database.ensure(_schema(), _make_database, config.registry.name)
            elif database is not None and database.look(_schema(), write=False) is not State.WHOLE:
                message = f"there is no registry database {database.shown} yet, or an unfinished one"
                raise ConfigError.of("register.uri", message, "Run `ocrmem register`, which makes it, or name another")
            address = _address(uri, database)
            yield cls(client_class(tracking_uri=address, registry_uri=address), config, database)

    @classmethod
    def problems(cls, config: RunConfig) -> list[Problem]:
        uri = config.registry.uri
        # A question may not wait as long as a transfer.
        patience = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(ANSWER_SECONDS), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        try:
            database = DatabaseFile.of(uri)
            with environment(patience), _mlflow(uri, database) as client_class:
                if database is not None and database.look(_schema(), write=True) is not State.WHOLE:
                    return _folder_problems(database)  # `register` makes it
                address = _address(uri, database)
                client = client_class(tracking_uri=address, registry_uri=address)
                client.search_experiments(max_results=1)
                client.search_registered_models(max_results=1)
        except ConfigError as error:
            return list(error.problems)
        return _folder_problems(database) if database is not None else []

    def ensure_version(
        self, package: Path, provenance: dict[str, Any], tags: Mapping[str, str], metrics: Mapping[str, float]
    ) -> Version:
        client, name, digest = self._client, self._config.registry.name, tags[PACKAGE_TAG]
        found = client.search_model_versions(f"tag.`{PACKAGE_TAG}` = '{digest}'")
        if ready := [version for version in found if version.name == name and version.status == "READY"]:
            return _version(min(ready, key=lambda version: int(version.version)))  # the oldest of several
        # A new run holds the package and a version is made of it, complete from its first moment.
        experiment = self._experiment(name)
        for run in client.search_runs([experiment], f"tags.`{PACKAGE_TAG}` = '{digest}'"):
            # An interrupted upload: a run that a version refers to would have been found.
            if self._database:  # MLflow keeps the files of what it deletes
                shutil.rmtree(self._database.artifacts / run.info.run_id, ignore_errors=True)
            client.delete_run(run.info.run_id)
        run = client.create_run(experiment, tags=dict(tags), run_name=f"{name} {digest[:12]}")
        self._log_run(run.info.run_id, provenance, metrics)
        client.log_artifacts(run.info.run_id, str(package), PACKAGE_FOLDER)
        client.set_terminated(run.info.run_id)
        if self._model(name) is None:
            client.create_registered_model(name, description="Optical memory adapters made by ocrmem")
        memory = provenance["metrics"]["memory"]
        figures = f"recall {memory['recall']:.3f} with memory, loss {memory['loss']:.4f}"
        made = client.create_model_version(
            name,
            source=f"{run.info.artifact_uri.rstrip('/')}/{PACKAGE_FOLDER}",
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

    def holder(self, name: str, alias: str) -> Version | None:
        model = self._model(name)
        number = model.aliases.get(alias) if model else None
        return None if number is None else self.by_number(name, int(number))

    def newest(self, name: str) -> Version | None:
        found = self._client.search_model_versions(f"name = '{name}'") if self._model(name) else []
        return max(map(_version, found), key=lambda version: version.number, default=None)

    def by_number(self, name: str, number: int) -> Version:
        return _version(self._client.get_model_version(name, str(number)))

    def fetch(self, version: Version, name: str, target: Path) -> None:
        from mlflow.artifacts import download_artifacts, list_artifacts

        uri, source = _address(self._config.registry.uri, self._database), self._source(version)
        if isinstance(source, Path):
            DirectoryStore(str(source), "register.uri").fetch(name, target)
            return
        listed = list_artifacts(artifact_uri=source, tracking_uri=uri) or []
        if name not in {file.path.rpartition("/")[2] for file in listed if not file.is_dir}:
            raise FileNotFoundError(errno.ENOENT, "is not there", f"{source}/{name}")
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            download_artifacts(artifact_uri=f"{source}/{name}", dst_path=scratch, tracking_uri=uri)
            DirectoryStore(scratch, "register.uri").fetch(name, target)

    def restore(self, version: Version, package: Path) -> None:
        source = self._source(version)
        if isinstance(source, Path):
            DirectoryStore(str(source.parent), "register.uri").upload(package, source.name, last=PROVENANCE)
        else:
            run_id = self._client.get_model_version(version.name, str(version.number)).run_id
            self._client.log_artifacts(run_id or "", str(package), PACKAGE_FOLDER)

    def _source(self, version: Version) -> Path | str:
        """Return where a version's package lies: a directory of this machine, or a URI that MLflow reads."""
        if self._database and (place := self._database.place_of(version.uri or "")):
            return place
        source = self._client.get_model_version_download_uri(version.name, str(version.number))
        parts = urlsplit(source)
        return Path(unquote(parts.path)) if parts.scheme in ("", "file") else source.rstrip("/")

    def _model(self, name: str) -> RegisteredModel | None:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _experiment(self, name: str) -> str:
        existing = self._client.get_experiment_by_name(name)
        if existing is not None:
            return existing.experiment_id
        # A server decides where its artifacts go.
        location = self._database.artifacts.as_uri() if self._database else None
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
def _mlflow(uri: str, database: DatabaseFile | None) -> Iterator[type[MlflowClient]]:
    """Import MLflow, give its client's class, and turn the errors of the block into problems."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # stdout is the verb's result, and the address that MLflow prints there may hold a password.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    # The default of seven tries with growing pauses waits minutes for a server that is not there.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(ATTEMPTS - 1))
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise not_installed("register", "mlflow") from None
    # Its first start logs every migration, and an error of the database with its traceback; the error is ours to tell.
    for name, level in (("mlflow", logging.WARNING), ("alembic", logging.WARNING), (_SQL_LOGGER, logging.CRITICAL)):
        logging.getLogger(name).setLevel(level)
    try:
        yield MlflowClient
    except (MlflowException, SQLAlchemyError) as error:
        raise ConfigError(_explain(error, uri, database)) from None


def _address(uri: str, database: DatabaseFile | None) -> str:
    """Return where MLflow is to find the registry of ``register.uri``."""
    return uri if database is None else database.address


@lru_cache
def _schema() -> Schema:
    """Return the versions of MLflow's tables, from its migration scripts."""
    from alembic.script import ScriptDirectory
    from mlflow.store import db_migrations

    scripts = ScriptDirectory(str(Path(next(iter(db_migrations.__path__)))))
    head = scripts.get_current_head() or ""
    return Schema(head, frozenset(script.revision for script in scripts.walk_revisions()))


def _make_database(file: Path, artifacts: str) -> None:
    """Make an empty MLflow database and close it."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # The root of artifacts is that of MLflow's own experiment 0, which it would put below the working directory,
    # in SQL that a path with both kinds of quotes breaks; in a URI they are escaped.
    SqlAlchemyStore(f"sqlite:///{file}", artifacts).engine.dispose()


def _explain(error: Exception, uri: str, database: DatabaseFile | None) -> Problem:
    from requests.exceptions import RequestException
    from sqlalchemy.exc import DBAPIError

    shown, parts, chain = redact_uri(uri), urlsplit(uri), list(causes(error))
    if database is not None and (cause := next((c for c in chain if isinstance(c, sqlite3.Error)), None)):
        return database.problem(cause)
    if driver := next((c for c in chain if isinstance(c, DBAPIError)), None):  # its text holds the statement
        message = f"the registry {shown} cannot be used ({redact(first_line(driver.orig or driver))})"
        return Problem("register.uri", message, "Check the address, the account's rights, and that it is up")
    said = " ".join(str(error).split())
    hidden = ((uri, shown), (parts.netloc if "@" in parts.netloc else "", "***"), (parts.password or "", "***"))
    for secret, instead in hidden:
        said = said.replace(secret, instead) if secret else said
    if any(isinstance(cause, RequestException) for cause in chain):
        reason = getattr(chain[-1], "strerror", None) or type(chain[-1]).__name__
        message = f"the registry {shown} does not answer ({reason})"
        return Problem("register.uri", message, "Check the address, that it is up, and the network")
    missing = getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"
    credentials = "Check that it is up; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD if it asks"
    return Problem("register.uri", f"the registry {shown} answers: {said}", NAME_REMEDY if missing else credentials)


def _folder_problems(database: DatabaseFile) -> list[Problem]:
    # `register` makes the folder, so the nearest existing one counts.
    parent = next(folder for folder in database.path.absolute().parents if folder.exists())
    problem = DirectoryStore(str(parent), "register.uri").problem(write=True)
    return [problem] if problem else []
