"""The kinds of model registry, by the scheme of ``register.uri``: the table that the configuration's rules, preflight
and `ocrmem.registry` read. To add one:

1. Write `ocrmem/registry/NAME_backend.py` with a class that derives from `ocrmem.registry.backend.Backend`.
2. Enter it in `REGISTRIES` under the schemes of its addresses.
3. If it needs a library: add an extra to pyproject.toml, and the library to `ocrmem.extras` and to ONLY_IN of
   tests/test_structure.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class RegistryKind:
    """A kind of registry.

    Attributes:
        title: its name in messages.
        backend: ``module:Class`` of its `Backend`, imported when a registry is opened.
        package: the library that the backend imports.
        keeps_files: whether it stores the adapter package; ``register.store`` does otherwise.
        address: regular expression of its whole URI; None: its library checks it.
        example: URIs to write instead of an invalid one.
    """

    title: str
    backend: str
    package: str
    keeps_files: bool
    address: str | None = None
    example: str = ""


MLFLOW = RegistryKind("MLflow", "ocrmem.registry.mlflow_backend:MlflowBackend", package="mlflow", keeps_files=True)
KUBEFLOW = RegistryKind(
    "the Kubeflow Model Registry",
    "ocrmem.registry.kubeflow_backend:KubeflowBackend",
    package="model_registry",
    keeps_files=False,
    address=r"kubeflow\+https?://[^/?#@\s]+(?:/[^?#\s]*)?",
    example="kubeflow+http://host:port or kubeflow+https://host",
)
REGISTRIES = {"sqlite": MLFLOW, "file": MLFLOW, "http": MLFLOW, "https": MLFLOW, "kubeflow": KUBEFLOW}


def registry_kind(uri: str) -> RegistryKind:
    """Return the kind of registry that a URI names, by its scheme up to a "+".

    MLflow takes other databases and the schemes of its plugins too, so a scheme that nobody else has is MLflow's.
    """
    return REGISTRIES.get(re.split(r"[^A-Za-z0-9]", uri)[0], MLFLOW)
