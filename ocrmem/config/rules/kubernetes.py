"""Rules over `kubernetes`: what the API server would refuse, found before it is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import PurePosixPath

from ocrmem.config.kubernetes_section import VolumesSection
from ocrmem.config.kubernetes_values import KEY, VARIABLE, WORD, parse_quantity, parse_secret_env, parse_toleration
from ocrmem.config.rules.rule import Fault, rule
from ocrmem.config.schema import RunSettings

_VOLUMES = tuple(VolumesSection.model_fields)


@rule("kubernetes.image", "kubernetes.gpu_resource")
def image_and_resource_are_names(config: RunSettings) -> Iterator[Fault]:
    section = config.kubernetes
    if not section.image.strip() or section.image != "".join(section.image.split()):
        yield "kubernetes.image", f"is {section.image!r}", "Give registry/name:tag or registry/name@sha256:digest"
    if not re.fullmatch(KEY, section.gpu_resource):
        remedy = "Use nvidia.com/gpu, amd.com/gpu or what `kubectl describe node` calls it"
        yield "kubernetes.gpu_resource", f"is {section.gpu_resource!r}", remedy


@rule("kubernetes.cpu", "kubernetes.memory", "kubernetes.cpu_limit", "kubernetes.memory_limit", "kubernetes.shm_size")
def limits_hold_what_is_requested(config: RunSettings) -> Iterator[Fault]:
    section = config.kubernetes
    for name in ("cpu", "memory"):
        requested, limit = getattr(section, name), getattr(section, f"{name}_limit")
        if limit is not None and _amount(limit) < _amount(requested):
            message = f"is {limit}, below kubernetes.{name} {requested}"
            yield f"kubernetes.{name}_limit", message, "Raise it, or leave it out: it is then as requested"
    memory = section.memory_limit or section.memory
    if section.shm_size is not None and _amount(section.shm_size) >= _amount(memory):
        message = f"is {section.shm_size}, which leaves nothing of the container's memory: /dev/shm counts to it"
        yield "kubernetes.shm_size", message, "Lower it, or raise kubernetes.memory"


def _amount(quantity: str) -> Decimal:
    return parse_quantity(quantity) or Decimal(0)


@rule("kubernetes.env", "kubernetes.secret_env", "kubernetes.secret_name", "kubernetes.secret_variables")
def variables_are_given_once(config: RunSettings) -> Iterator[Fault]:
    section = config.kubernetes
    given: dict[str, str] = {}
    sources = [(f"env.{name}", name) for name in section.env]
    for index, text in enumerate(section.secret_env):
        parsed = parse_secret_env(text)
        if parsed is None:
            remedy = "Write VARIABLE=SECRET/KEY: the Secret's name, not its value"
            yield f"kubernetes.secret_env.{index}", f"is {text!r}", remedy
        else:
            sources.append((f"secret_env.{index}", parsed[0]))
    insisted = {name for field, name in sources if field.startswith("secret_env")}  # they take the place of these
    if section.secret_name:
        names = enumerate(section.secret_variables)
        sources += [(f"secret_variables.{index}", name) for index, name in names if name not in insisted]
    for field, name in sources:
        if not re.fullmatch(VARIABLE, name):
            message = f"is {name!r}, which cannot be an environment variable"
            yield f"kubernetes.{field}", message, "Use letters, digits and _"
        elif name in given:
            message = f"gives {name}, which kubernetes.{given[name]} gives too"
            yield f"kubernetes.{field}", message, "Keep the one you mean"
        given.setdefault(name, field)


@rule("kubernetes.labels", "kubernetes.node_selector", "kubernetes.tolerations")
def labels_and_tolerations_are_readable(config: RunSettings) -> Iterator[Fault]:
    section = config.kubernetes
    for field in ("labels", "node_selector"):
        for key, value in getattr(section, field).items():
            if not re.fullmatch(KEY, key) or not re.fullmatch(f"({WORD})?", value):
                message = f"is {value!r}: keys and values have at most 63 letters, digits, -, _ and ."
                yield f"kubernetes.{field}.{key}", message, "Shorten or rename it"
    for index, text in enumerate(section.tolerations):
        if parse_toleration(text) is None:
            remedy = "Write it as `kubectl taint` does: nvidia.com/gpu=present:NoSchedule, nvidia.com/gpu:NoSchedule"
            yield f"kubernetes.tolerations.{index}", f"is {text!r}", remedy


@rule(*(f"kubernetes.volumes.{name}" for name in _VOLUMES))
def volumes_lie_apart(config: RunSettings) -> Iterator[Fault]:
    volumes = {name: getattr(config.kubernetes.volumes, name) for name in _VOLUMES}
    mounted = {name: PurePosixPath(volume.path) for name, volume in volumes.items() if volume.claim}
    for name, path in mounted.items():
        field = f"kubernetes.volumes.{name}.path"
        if not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/"):
            yield field, f"is {str(path)!r}", "Give an absolute path, such as /workspace/dataset"
        for other in list(mounted)[: list(mounted).index(name)]:
            if path.is_relative_to(mounted[other]) or mounted[other].is_relative_to(path):
                message = f"is {path}, and kubernetes.volumes.{other} is mounted at {mounted[other]}"
                yield field, message, "Mount them side by side"
    output = config.kubernetes.volumes.output
    if output.claim is None or output.read_only:
        message = "is not mounted for writing, so the adapter and the checkpoints would be lost with the pod"
        yield "kubernetes.volumes.output", message, "Give a claim, with read_only: false"
