"""What `register` and `resolve_adapter` ask of a registry, and which registry ``register.uri`` means."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ocrmem.config import RunConfig
from ocrmem.errors import Problem

PACKAGE_TAG = "ocrmem.package_sha256"
ADAPTER_TAG = "ocrmem.adapter_sha256"
GATE_TAG = "ocrmem.gate"
LOOK_IT_UP = "Check the name, the alias and the version; `ocrmem register` makes them"


@dataclass(frozen=True)
class Version:
    """A model version.

    Attributes:
        name: of the registered model.
        number: counts from 1 for each model.
        tags: what is written on the version.
        uri: where its package lies, if the registry says so.
    """

    name: str
    number: int
    tags: Mapping[str, str]
    uri: str | None = None

    @property
    def reference(self) -> str:
        return f"models:/{self.name}/{self.number}"


class Backend(Protocol):
    """A registry. Every method raises ConfigError when the registry cannot be used as configured."""

    def ensure_version(
        self, package: Path, provenance: dict[str, Any], tags: Mapping[str, str], metrics: Mapping[str, float]
    ) -> Version:
        """The version that holds this package: the one that is there already, or a new one.

        Versions are told apart by ``PACKAGE_TAG`` among ``tags``. What an earlier call had begun when it was
        cut off is completed or removed.
        """

    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        """Write tags on a version; the same values again change nothing."""

    def set_alias(self, version: Version, alias: str) -> None:
        """Let the alias mean this version, and no other."""

    def by_alias(self, name: str, alias: str) -> Version: ...

    def by_number(self, name: str, number: int) -> Version: ...

    def download(self, version: Version, directory: Path) -> None:
        """Put the version's package into a directory that exists. The files are not verified."""


def open_backend(config: RunConfig) -> AbstractContextManager[Backend]:
    """The registry that ``register.uri`` names; nothing of its libraries is imported before."""
    if is_kubeflow(config):
        from ocrmem.registry.kubeflow_backend import kubeflow_backend

        return kubeflow_backend(config)
    from ocrmem.registry.mlflow_backend import mlflow_backend

    return mlflow_backend(config)


def registry_problems(config: RunConfig) -> list[Problem]:
    """What would keep `register` from reaching the registry and writing there, asked without writing a version."""
    if is_kubeflow(config):
        from ocrmem.registry.kubeflow_backend import kubeflow_problems

        return kubeflow_problems(config)
    from ocrmem.registry.mlflow_backend import mlflow_problems

    return mlflow_problems(config)


def is_kubeflow(config: RunConfig) -> bool:
    return config.register_.uri.startswith("kubeflow+")


def registry_directory(config: RunConfig) -> Path:
    """Where local files of the registry are: beside the sqlite file, or ``registry/`` for a server."""
    database = sqlite_path(config.register_.uri)
    return database.parent if database else Path("registry")


def sqlite_path(uri: str) -> Path | None:
    """The file of ``sqlite:///relative`` or ``sqlite:////absolute``; None for any other registry."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
