"""Resolve ``models:/NAME@ALIAS`` to a local directory with a verified adapter package."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError, ModelError
from ocrmem.files import replacing_directory, sha256_json
from ocrmem.package import verify_package
from ocrmem.registry.backend import PACKAGE_TAG, Backend, Version, backend_of, registry_directory

_REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")


def resolve_adapter(reference: str, config: RunConfig) -> Path:
    """Return the local directory of an adapter: the one given, or a registered package, downloaded and verified.

    Args:
        reference: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, or a directory.
        config: ``register.uri`` is the registry of ``models:/``.

    Raises:
        ConfigError: the reference is invalid, or there is no such directory, version or alias.
        ModelError: a package's files do not match its provenance or the registry.
    """
    if not reference.startswith("models:"):
        directory = Path(reference)
        if not directory.is_dir():
            remedy = "Give an adapter directory or models:/NAME@ALIAS"
            raise ConfigError.of("--adapter", f"{reference!r} is not a directory", remedy)
        return directory
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        remedy = "Write models:/NAME@ALIAS or models:/NAME/VERSION"
        raise ConfigError.of("--adapter", f"{reference!r} names no version", remedy)
    with backend_of(config).open(config) as backend:
        if match["alias"]:
            version = backend.by_alias(match["name"], match["alias"])
        else:
            version = backend.by_number(match["name"], int(match["version"]))
        return _local_copy(backend, config, version)


def _local_copy(backend: Backend, config: RunConfig, version: Version) -> Path:
    """Return a local copy of the version's package, made once and again when its files have changed."""
    key = sha256_json([config.registry.uri, version.name, version.number])[:16]
    target = registry_directory(config) / "cache" / key
    wanted = version.tags.get(PACKAGE_TAG, "")
    if target.is_dir():
        with suppress(ModelError):
            verify_package(target, wanted)
            return target
    with replacing_directory(target) as directory:
        backend.download(version, directory)
        found = verify_package(directory)["package_sha256"]
        if found != wanted:
            message = f"the registry says package {wanted}, but its files are package {found}"
            raise ModelError.of(version.reference, message, "Register the adapter again and use that version")
    return target
