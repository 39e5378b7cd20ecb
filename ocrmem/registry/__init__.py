"""The model registry: versions of the adapter package, and an alias that moves only when the gate is met.

Each kind of registry is one file here; `ocrmem.registries` lists them by the scheme of their addresses.
"""

from ocrmem.registry.backend import backend_of, registry_directory
from ocrmem.registry.registration import RegisterResult, register
from ocrmem.registry.resolve import resolve_adapter

__all__ = ["RegisterResult", "backend_of", "register", "registry_directory", "resolve_adapter"]
