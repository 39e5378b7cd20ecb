"""The table of registries: which backend a URI names, and that a new one takes an entry and a class."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.registered import finished_run

from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError, Problem
from ocrmem.package import verify_package
from ocrmem.registries import KUBEFLOW, MLFLOW, REGISTRIES, RegistryKind, registry_kind
from ocrmem.registry import backend_of, register, resolve_adapter
from ocrmem.registry.backend import PACKAGE_TAG, Backend, Version


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("sqlite:///registry/mlflow.db", MLFLOW),
        ("file:///srv/mlruns", MLFLOW),
        ("https://mlflow.example.org", MLFLOW),
        ("postgresql://db/mlflow", MLFLOW),
        ("databricks", MLFLOW),
        ("./mlruns", MLFLOW),
        ("kubeflow+http://registry:8080", KUBEFLOW),
        ("kubeflow+https://registry", KUBEFLOW),
        ("kubeflow://registry", KUBEFLOW),
    ],
)
def test_a_uri_names_its_registry(uri: str, kind: RegistryKind) -> None:
    assert registry_kind(uri) is kind


@pytest.mark.parametrize("kind", [MLFLOW, KUBEFLOW], ids=lambda kind: kind.title)
def test_each_entry_names_a_backend_that_is_there_without_its_library(kind: RegistryKind) -> None:
    module, _, name = kind.backend.partition(":")
    assert issubclass(getattr(import_module(module), name), Backend)


class ShelfBackend(Backend):
    """A registry in this process: packages on a list."""

    shelf: ClassVar[list[tuple[Version, Path]]] = []
    aliases: ClassVar[dict[str, Version]] = {}

    @classmethod
    @contextmanager
    def open(cls, config: RunConfig, *, write: bool = False) -> Iterator[ShelfBackend]:
        yield cls()

    @classmethod
    def problems(cls, config: RunConfig) -> list[Problem]:
        return [] if config.registry.uri == "shelf://here" else [Problem("register.uri", "is another shelf", "Move")]

    def ensure_version(
        self, package: Path, provenance: dict[str, Any], tags: Mapping[str, str], metrics: Mapping[str, float]
    ) -> Version:
        for version, _ in self.shelf:
            if version.tags[PACKAGE_TAG] == tags[PACKAGE_TAG]:
                return version
        self.shelf.append((Version("adapter", len(self.shelf) + 1, tags), package))
        return self.shelf[-1][0]

    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        pass

    def set_alias(self, version: Version, alias: str) -> None:
        self.aliases[alias] = version

    def holder(self, name: str, alias: str) -> Version | None:
        return self.aliases.get(alias)

    def newest(self, name: str) -> Version | None:
        return self.shelf[-1][0] if self.shelf else None

    def by_number(self, name: str, number: int) -> Version:
        return self.shelf[number - 1][0]

    def fetch(self, version: Version, name: str, target: Path) -> None:
        shutil.copyfile(self.shelf[version.number - 1][1] / name, target)

    def restore(self, version: Version, package: Path) -> None:
        raise AssertionError("nothing is lost here")


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backend = f"{__name__}:ShelfBackend"
    kind = RegistryKind("a shelf", backend, "json", keeps_files=True, address="shelf://.+", example="shelf://here")
    monkeypatch.setitem(REGISTRIES, "shelf", kind)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("shelf")
def test_a_new_registry_takes_an_entry_and_a_class(tmp_path: Path) -> None:
    run = finished_run(tmp_path, register={"uri": "shelf://here"})
    assert backend_of(run).problems(run) == []
    assert (register(run)["version"], register(run)["version"]) == (1, 1)
    verify_package(resolve_adapter("models:/adapter@champion", run))


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"uri": "shelf:"}, "register.uri: is 'shelf:'. Write shelf://here"),
        ({"uri": "shelf://here", "store": "/mnt/models"}, "register.store: is set, but a shelf, which register.uri"),
    ],
)
def test_the_configuration_knows_it(tmp_path: Path, section: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match="register") as caught:
        RunConfig.from_dict({"register": section})
    assert said in str(caught.value)
