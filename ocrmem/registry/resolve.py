"""Resolve what names an adapter to a local directory; ``models:/NAME@ALIAS`` to one with a verified package."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from ocrmem.boxed import boxed, boxed_names
from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError, ModelError
from ocrmem.facts import PACKAGE_FILES, PROVENANCE
from ocrmem.files import replacing_directory, sha256_json
from ocrmem.package import read_provenance, verify_package
from ocrmem.registry.backend import GATE_TAG, NAME_REMEDY, PACKAGE_TAG, Backend, Version, backend_of, registry_directory
from ocrmem.secrets import redact_uri

_REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")


def resolve_adapter(reference: str, config: RunConfig) -> Path:
    """Return the local directory of an adapter: in the box, the one given, or a registered package, downloaded and
    verified.

    Args:
        reference: a name in the box, ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, or a directory; one that is
            called as an adapter in the box is reached by its path (``./english``).
        config: ``register.uri`` is the registry of ``models:/``.

    Raises:
        ConfigError: the reference is invalid, or there is no such directory, version or alias.
        ModelError: a package's files do not match its provenance or the registry.
    """
    if reference in (names := boxed_names()):
        return boxed(reference)
    if not reference.startswith("models:"):
        directory = Path(reference)
        if not reference or not directory.is_dir():
            remedy = f"Give an adapter directory, models:/NAME@ALIAS, or one in the box ({', '.join(names) or 'none'})"
            raise ConfigError.of("--adapter", f"{reference!r} is not a directory", remedy)
        return directory
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        remedy = "Write models:/NAME@ALIAS or models:/NAME/VERSION"
        raise ConfigError.of("--adapter", f"{reference!r} names no version", remedy)
    with backend_of(config).open(config) as backend:
        found = backend.holder(match["name"], match["alias"]) if match["alias"] else None
        if match["alias"] and found is None:
            raise _no_alias(config, match["name"], match["alias"], backend.newest(match["name"]))
        return _local_copy(backend, config, found or backend.by_number(match["name"], int(match["version"])))


def _no_alias(config: RunConfig, name: str, alias: str, newest: Version | None) -> ConfigError:
    """Return the error of an alias that means nothing; most often the gate kept it from the newest version."""
    message = f"the registry {redact_uri(config.registry.uri)} has no {name} with the alias {alias}"
    if newest is None:
        return ConfigError.of("register.uri", message, NAME_REMEDY)
    if newest.tags.get(GATE_TAG) == "failed":
        message += f": its newest version, {newest.number}, did not pass the gate"
        again = "train on, or change register.gate, and run `ocrmem register` again"
        remedy = f"Name that version, {newest.reference}, or {again}"
    else:
        message += f"; its newest version is {newest.number}"
        alias = config.registry.alias
        remedy = f"Check the alias (register.alias is {alias}), or name that version, {newest.reference}"
    return ConfigError.of("register.uri", message, remedy)


def fetch_package(backend: Backend, config: RunConfig, version: Version) -> Path:
    """Return a new local copy of the version's package, taken from the registry and verified.

    What the registry names is not trusted: provenance.json comes first and must be the version's, and of the rest only
    the files of a package are taken.

    Raises:
        ModelError: files are missing there, or are not the version's package.
    """
    wanted = version.tags.get(PACKAGE_TAG, "")
    again = "Run `ocrmem register` where the adapter was trained: it puts the package back"
    with replacing_directory(_copy_of(config, version)) as directory:
        try:
            backend.fetch(version, PROVENANCE, directory / PROVENANCE)
            found = read_provenance(directory)["package_sha256"]
            if found != wanted:
                message = f"the registry says package {wanted[:12]}, but its files are package {found[:12]}"
                raise ModelError.of(version.reference, message, again)
            for name in PACKAGE_FILES:
                if name != PROVENANCE:
                    backend.fetch(version, name, directory / name)
        except FileNotFoundError as error:
            message = f"its package is not in the registry: there is no {error.filename}"
            raise ModelError.of(version.reference, message, again) from None
        verify_package(directory, wanted)
    return _copy_of(config, version)


def _local_copy(backend: Backend, config: RunConfig, version: Version) -> Path:
    """Return a local copy of the version's package, made once and again when its files have changed."""
    copy = _copy_of(config, version)
    if copy.is_dir():
        with suppress(ModelError):
            verify_package(copy, version.tags.get(PACKAGE_TAG, ""))
            return copy
    return fetch_package(backend, config, version)


def _copy_of(config: RunConfig, version: Version) -> Path:
    key = sha256_json([config.registry.uri, version.name, version.number])[:16]
    return registry_directory(config) / "cache" / key
