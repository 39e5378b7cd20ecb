"""Rules over places: what verbs write, which replace their directories whole, the DVC remote, the registry's store."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from urllib.parse import urlsplit

from ocrmem.config.rules.rule import Fault, rule
from ocrmem.config.schema import PathsSection, RunSettings
from ocrmem.registries import KUBEFLOW, registry_kind
from ocrmem.storage import is_s3

_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/.*)?")
# Several verbs write into paths.reports, file by file.
_OUTPUTS = tuple(f"paths.{name}" for name in PathsSection.model_fields if name != "reports")


def _outputs(config: RunSettings) -> dict[str, Path]:
    """Return the absolute directory of each output, by its field."""
    return {field: _absolute(getattr(config.paths, field.removeprefix("paths."))) for field in _OUTPUTS}


def _absolute(path: str) -> Path:
    return Path(os.path.realpath(path))  # unlike Path.resolve it does not mind a loop of links


@rule("data.path", *_OUTPUTS)
def outputs_do_not_overlap(config: RunSettings) -> Iterator[Fault]:
    outputs = _outputs(config)
    here, data = _absolute("."), _absolute(config.data.path)
    for field, path in outputs.items():
        if here.is_relative_to(path):
            message = "is the working directory or one above it, and verbs replace it whole"
            yield field, message, "Name a folder of its own"
        elif data.is_relative_to(path):
            yield field, "holds data.path, and verbs replace it whole", "Name a folder of its own"
    for (other, outer), (field, path) in combinations(outputs.items(), 2):
        if path.is_relative_to(outer) or outer.is_relative_to(path):
            yield field, f"is the same as {other}, or one lies in the other", "Give each a folder of its own"


@rule("version.remote", "version.endpoint_url", *_OUTPUTS)
def dvc_remote_is_a_place(config: RunSettings) -> Iterator[Fault]:
    yield from _place(config, "version.remote", config.version.remote)
    yield from _endpoint("version.endpoint_url", config.version.endpoint_url, config.version.remote, "remote")


@rule("register.store", "register.endpoint_url", "register.uri", *_OUTPUTS)
def registry_has_what_it_needs(config: RunSettings) -> Iterator[Fault]:
    section = config.registry
    yield from _place(config, "register.store", section.store)
    yield from _endpoint("register.endpoint_url", section.endpoint_url, section.store, "store")
    registry = registry_kind(section.uri)
    if registry.address and not re.fullmatch(registry.address, section.uri):
        remedy = f"Write {registry.example}; a token comes from the environment"
        yield "register.uri", f"is {section.uri!r}", remedy
    elif registry.keeps_files and section.store is not None:
        message = f"is set, but {registry.title}, which register.uri names, keeps the files itself"
        yield "register.store", message, f"Leave it out, or set register.uri to {KUBEFLOW.example}"
    elif not registry.keeps_files and section.store is None:
        message = f"is not set, and {registry.title} keeps no files, only where they are"
        yield "register.store", message, "Set it to a directory that readers share, or to s3://bucket/prefix"


def _place(config: RunSettings, field: str, location: str | None) -> Iterator[Fault]:
    if location is None:
        return
    if not location.strip() or not location.isprintable():
        yield field, f"is {location!r}", "Give a directory or s3://bucket/prefix, or leave it out"
    elif "://" not in location:
        for output, path in _outputs(config).items():
            if _absolute(location).is_relative_to(path):
                yield field, f"lies in {output}, and verbs replace that whole", "Name a folder outside of it"
    elif not _BUCKET.fullmatch(location):
        yield field, f"is {location!r}", "Give a directory or s3://bucket/prefix"


def _endpoint(field: str, endpoint: str | None, location: str | None, name: str) -> Iterator[Fault]:
    if endpoint is None:
        return
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield field, f"is {endpoint!r}", "Give the address of an S3 service, such as https://minio.example.org:9000"
    elif not is_s3(location or ""):
        yield field, f"is set, but {name} is not on S3", f"Leave it out, or set {name} to s3://bucket/prefix"
