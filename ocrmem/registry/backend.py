"""The operations of a registry that `register` and `resolve_adapter` use, and the registry of ``register.uri``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ocrmem.config import RunConfig
from ocrmem.errors import Problem
from ocrmem.registries import registry_kind

PACKAGE_TAG = "ocrmem.package_sha256"
ADAPTER_TAG = "ocrmem.adapter_sha256"
GATE_TAG = "ocrmem.gate"
LORA_TAG = "ocrmem.lora"  # of versions that change the base model
NAME_REMEDY = "Check the name, the alias and the version; `ocrmem register` makes them"


@dataclass(frozen=True)
class Version:
    """A model version."""

    name: str  # of the registered model
    number: int  # from 1 for each model
    tags: Mapping[str, str]
    uri: str | None = None  # of its package, if the registry gives it

    @property
    def reference(self) -> str:
        return f"models:/{self.name}/{self.number}"


class Backend(ABC):
    """A registry. Every method raises ConfigError when the registry cannot be used as configured."""

    @classmethod
    @abstractmethod
    def open(cls, config: RunConfig, *, write: bool = False) -> AbstractContextManager[Backend]:
        """Connect to the registry of ``register.uri``.

        Args:
            write: whether versions may be made; a registry that lives in a file is made then if it is not there.
        """

    @classmethod
    @abstractmethod
    def problems(cls, config: RunConfig) -> list[Problem]:
        """Return what would keep `register` from the registry, within seconds and without writing a version."""

    @abstractmethod
    def ensure_version(
        self, package: Path, provenance: dict[str, Any], tags: Mapping[str, str], metrics: Mapping[str, float]
    ) -> Version:
        """Return the version that holds this package, made now if there is none.

        Versions are told apart by `PACKAGE_TAG` among ``tags``. What an interrupted call has left is completed or
        removed.
        """

    @abstractmethod
    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        """Write tags on a version; the same values again change nothing."""

    @abstractmethod
    def set_alias(self, version: Version, alias: str) -> None:
        """Let the alias mean this version, and no other."""

    @abstractmethod
    def holder(self, name: str, alias: str) -> Version | None:
        """Return the version that an alias means, or None if it means none."""

    @abstractmethod
    def newest(self, name: str) -> Version | None:
        """Return the version of the highest number, or None if there is none."""

    @abstractmethod
    def by_number(self, name: str, number: int) -> Version:
        """Return a version by its number."""

    @abstractmethod
    def fetch(self, version: Version, name: str, target: Path) -> None:
        """Write one file of the version's package to ``target``, unverified.

        Raises:
            FileNotFoundError: the registry has no such file.
            ModelError: a link leads out of the package.
        """

    @abstractmethod
    def restore(self, version: Version, package: Path) -> None:
        """Put the package's files where the version says that they are, in place of what lies there."""


def backend_of(config: RunConfig) -> type[Backend]:
    """Import the backend for ``register.uri``; nothing of its libraries is imported before."""
    module, _, name = registry_kind(config.registry.uri).backend.partition(":")
    found: type[Backend] = getattr(import_module(module), name)
    return found


def registry_directory(config: RunConfig) -> Path:
    """Return the folder of the registry's local files: the sqlite file's, or ``registry/`` for a server."""
    database = sqlite_path(config.registry.uri)
    return database.parent if database else Path("registry")


def sqlite_path(uri: str) -> Path | None:
    """Return the file of ``sqlite:///relative`` or ``sqlite:////absolute``; None for any other registry."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
