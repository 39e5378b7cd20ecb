"""Rules over places outside the workspace: the DVC remote, the registry and its store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from ocrmem.config.rules.outputs import OUTPUT_FIELDS, absolute, output_directories
from ocrmem.config.rules.rule import Fault, rule
from ocrmem.config.schema import RunSettings
from ocrmem.registries import KUBEFLOW, registry_kind
from ocrmem.storage import is_s3

_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/.*)?")


@rule("version.remote", "version.endpoint_url", *OUTPUT_FIELDS)
def dvc_remote_is_a_place(config: RunSettings) -> Iterator[Fault]:
    yield from _place(config, "version.remote", config.version.remote)
    yield from _endpoint("version.endpoint_url", config.version.endpoint_url, config.version.remote, "remote")


@rule("register.store", "register.endpoint_url", "register.uri", *OUTPUT_FIELDS)
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
        for output, path in output_directories(config).items():
            if absolute(location).is_relative_to(path):
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
