"""Rules over `kubernetes`: names and forms that the API server would refuse, told before it is asked.

The forms are those of https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and of the
quantities in https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import PurePosixPath

from ocrmem.config import KubernetesSection, RunConfig
from ocrmem.config_rules.rule import Fault, Rules

rule = Rules()

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_VALUE = re.compile(rf"({_WORD})?")
_KEY = re.compile(rf"({_SUBDOMAIN.pattern}/)?{_WORD}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_SECRET_ENV = re.compile(rf"({_VARIABLE.pattern})=({_SUBDOMAIN.pattern})/([-._A-Za-z0-9]+)")
_TOLERATION = re.compile(
    rf"(?P<key>{_KEY.pattern})(?:=(?P<value>{_WORD}))?(?::(?P<effect>NoSchedule|PreferNoSchedule|NoExecute))?"
)
_UNITS = {"": 0, "m": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_VOLUMES = ("dataset", "features", "models", "output")
_NAMED = "Use lower-case letters, digits, - and ., as in ocrmem-output"


def quantity(text: str) -> Decimal | None:
    """A quantity of Kubernetes as a number (bytes or cores); None if it is not one."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        return None
    number, unit = Decimal(match[1]), match[2] or ""
    if unit == "m":
        return number / 1000
    return number * (2 ** _BINARY[unit] if unit in _BINARY else 10 ** _UNITS[unit])


def parse_toleration(text: str) -> dict[str, str] | None:
    """``key=value:Effect``, ``key:Effect`` or ``key`` as a toleration; None if it is none of them."""
    match = _TOLERATION.fullmatch(text)
    if match is None:
        return None
    toleration = {"key": match["key"], "operator": "Exists"}
    if match["value"] is not None:
        toleration |= {"operator": "Equal", "value": match["value"]}
    return toleration | ({"effect": match["effect"]} if match["effect"] else {})


def parse_secret_env(text: str) -> tuple[str, str, str] | None:
    """Variable, Secret and key of ``VARIABLE=SECRET/KEY``; None if it is not of that form."""
    match = _SECRET_ENV.fullmatch(text)
    if match is None:
        return None
    variable, _, rest = text.partition("=")
    secret, _, key = rest.partition("/")
    return variable, secret, key


@rule("kubernetes")
def names_are_names(config: RunConfig) -> Iterator[Fault]:
    section = config.kubernetes
    names = {name: getattr(section, name) for name in ("namespace", "runtime", "service_account")}
    names |= {name: value for name in ("secret_name", "queue", "priority") if (value := getattr(section, name))}
    names |= {f"image_pull_secrets.{index}": name for index, name in enumerate(section.image_pull_secrets)}
    names |= {f"volumes.{name}.claim": claim for name in _VOLUMES if (claim := getattr(section.volumes, name).claim)}
    for field, name in names.items():
        if len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
            yield f"kubernetes.{field}", f"is {name!r}, which cannot be the name of a Kubernetes object", _NAMED
    if not section.image.strip() or section.image != "".join(section.image.split()):
        yield "kubernetes.image", f"is {section.image!r}", "Give registry/name:tag or registry/name@sha256:digest"
    if not _KEY.fullmatch(section.gpu_resource):
        remedy = "Use nvidia.com/gpu, amd.com/gpu or what `kubectl describe node` calls it"
        yield "kubernetes.gpu_resource", f"is {section.gpu_resource!r}", remedy


@rule("kubernetes")
def quantities_are_quantities(config: RunConfig) -> Iterator[Fault]:
    section = config.kubernetes
    read = {}
    for name in ("cpu", "memory", "cpu_limit", "memory_limit", "shm_size"):
        text = getattr(section, name)
        if text is None:
            continue
        read[name] = quantity(text)
        if read[name] is None:
            yield f"kubernetes.{name}", f"is {text!r}, which is no quantity", "Write 4 or 500m for CPU, 32Gi for memory"
    for name in ("cpu", "memory"):
        asked, limit = read.get(name), read.get(f"{name}_limit")
        if asked is not None and limit is not None and limit < asked:
            message = f"is {getattr(section, f'{name}_limit')}, below kubernetes.{name} {getattr(section, name)}"
            yield f"kubernetes.{name}_limit", message, "Raise it, or leave it out: it is then as requested"
    memory, shm = read.get("memory_limit") or read.get("memory"), read.get("shm_size")
    if memory is not None and shm is not None and shm >= memory:
        message = f"is {section.shm_size}, which leaves nothing of the container's memory: /dev/shm counts to it"
        yield "kubernetes.shm_size", message, "Lower it, or raise kubernetes.memory"


@rule("kubernetes")
def variables_are_given_once(config: RunConfig) -> Iterator[Fault]:
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
    if section.secret_name:
        sources += [(f"secret_variables.{index}", name) for index, name in enumerate(section.secret_variables)]
    for field, name in sources:
        if not _VARIABLE.fullmatch(name):
            message = f"is {name!r}, which cannot be an environment variable"
            yield f"kubernetes.{field}", message, "Use letters, digits and _"
        elif name in given:
            message = f"gives {name}, which kubernetes.{given[name]} gives too"
            yield f"kubernetes.{field}", message, "Keep the one that is meant"
        given.setdefault(name, field)


@rule("kubernetes")
def labels_and_tolerations_are_readable(config: RunConfig) -> Iterator[Fault]:
    section = config.kubernetes
    for field in ("labels", "node_selector"):
        for key, value in getattr(section, field).items():
            if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
                message = f"is {value!r}: keys and values have at most 63 letters, digits, -, _ and ."
                yield f"kubernetes.{field}.{key}", message, "Shorten or rename it"
    for index, text in enumerate(section.tolerations):
        if parse_toleration(text) is None:
            remedy = "Write it as `kubectl taint` does: nvidia.com/gpu=present:NoSchedule, nvidia.com/gpu:NoSchedule"
            yield f"kubernetes.tolerations.{index}", f"is {text!r}", remedy


@rule("kubernetes")
def volumes_lie_apart(config: RunConfig) -> Iterator[Fault]:
    mounted = _mounts(config.kubernetes)
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


def _mounts(section: KubernetesSection) -> dict[str, PurePosixPath]:
    volumes = {name: getattr(section.volumes, name) for name in _VOLUMES}
    return {name: PurePosixPath(volume.path) for name, volume in volumes.items() if volume.claim}
