"""Rules over `kubernetes`: what the API server would refuse, found before it is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import combinations
from operator import attrgetter
from pathlib import PurePosixPath

from ocrmem.config.kubernetes_section import VolumesSection
from ocrmem.config.kubernetes_values import KEY, VARIABLE, WORD, parse_quantity
from ocrmem.config.rules.rule import Fault, rule
from ocrmem.config.schema import RunSettings

_VOLUMES = tuple(f"kubernetes.volumes.{name}" for name in VolumesSection.model_fields)


@rule("kubernetes.cpu", "kubernetes.memory", "kubernetes.cpu_limit", "kubernetes.memory_limit", "kubernetes.shm_size")
def limits_hold_what_is_requested(config: RunSettings) -> Iterator[Fault]:
    section = config.kubernetes
    for name in ("cpu", "memory"):
        requested, limit = getattr(section, name), getattr(section, f"{name}_limit")
        if limit is not None and _amount(limit) < _amount(requested):
            remedy = "Raise it, or leave it out: it is then as requested"
            yield f"kubernetes.{name}_limit", f"is {limit}, below kubernetes.{name} {requested}", remedy
    shm = section.shm_size
    if shm is not None and _amount(shm) >= _amount(section.memory_limit or section.memory):
        message = f"is {shm}, which leaves nothing of the container's memory: /dev/shm counts to it"
        yield "kubernetes.shm_size", message, "Lower it, or raise kubernetes.memory"


def _amount(quantity: str) -> Decimal:
    return parse_quantity(quantity) or Decimal(0)


@rule("kubernetes.env", "kubernetes.secret_env", "kubernetes.secret_name", "kubernetes.secret_variables")
def variables_are_given_once(config: RunSettings) -> Iterator[Fault]:
    section = config.kubernetes
    given: dict[str, str] = {}
    sources = [(f"env.{name}", name) for name in section.env]
    referred = [text.partition("=")[0] for text in section.secret_env]  # they take the place of secret_variables
    sources += [(f"secret_env.{index}", name) for index, name in enumerate(referred)]
    if section.secret_name:
        names = enumerate(section.secret_variables)
        sources += [(f"secret_variables.{index}", name) for index, name in names if name not in referred]
    for field, name in sources:
        if not re.fullmatch(VARIABLE, name):
            message, remedy = f"is {name!r}, which cannot be an environment variable", "Use letters, digits and _"
            yield f"kubernetes.{field}", message, remedy
        elif name in given:
            message = f"gives {name}, which kubernetes.{given[name]} gives too"
            yield f"kubernetes.{field}", message, "Keep the one you mean"
        given.setdefault(name, field)


@rule("kubernetes.labels", "kubernetes.node_selector")
def labels_are_short_words(config: RunSettings) -> Iterator[Fault]:
    for field in ("labels", "node_selector"):
        for key, value in getattr(config.kubernetes, field).items():
            if not re.fullmatch(KEY, key) or not re.fullmatch(f"({WORD})?", value):
                message = f"is {value!r}: keys and values have at most 63 letters, digits, -, _ and ."
                yield f"kubernetes.{field}.{key}", message, "Shorten or rename it"


@rule(*_VOLUMES)
def volumes_lie_apart(config: RunSettings) -> Iterator[Fault]:
    output = config.kubernetes.volumes.output
    if output.claim is None or output.read_only:
        message = "is not mounted for writing, so the adapter and the checkpoints would be lost with the pod"
        yield "kubernetes.volumes.output", message, "Give a claim, with read_only: false"
    volumes = dict(zip(_VOLUMES, attrgetter(*_VOLUMES)(config), strict=True))
    mounted = {field: PurePosixPath(volume.path) for field, volume in volumes.items() if volume.claim}
    for field, path in mounted.items():
        if not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/"):
            yield f"{field}.path", f"is {str(path)!r}", "Give an absolute path, such as /workspace/dataset"
    for (other, outer), (field, path) in combinations(mounted.items(), 2):
        if path.is_relative_to(outer) or outer.is_relative_to(path):
            yield f"{field}.path", f"is {path}, and {other} is mounted at {outer}", "Mount them side by side"
