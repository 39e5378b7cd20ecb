"""The model registry: versions of the adapter package, and an alias that moves only when the gate holds.

`flow` is the verb `register`, `resolve` finds an adapter by name, `backend` is what both ask of a registry.
MLflow is known to `mlflow_backend` alone, the Kubeflow Model Registry to `kubeflow_backend`.
"""

from ocrmem.registry.backend import registry_directory, registry_problems
from ocrmem.registry.flow import REGISTRATION, register
from ocrmem.registry.resolve import resolve_adapter

__all__ = ["REGISTRATION", "register", "registry_directory", "registry_problems", "resolve_adapter"]
