"""Check what must hold on the cluster before a GPU is requested, all at once: `ocrmem preflight`.

Nothing is created or changed. Of Secrets only the names of their keys are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from ocrmem.cluster.api import Api
from ocrmem.cluster.manifest import train_job
from ocrmem.cluster.pauses import Pauses
from ocrmem.cluster.permissions import (
    CLAIMS,
    NAMESPACES,
    NODES,
    PERMISSIONS,
    QUOTAS,
    RUNTIMES,
    SECRETS,
    Resource,
    grant,
)
from ocrmem.cluster.schemas import RUNTIME_FIELDS, unknown_fields
from ocrmem.config import PLACEHOLDER_IMAGE, KubernetesSection, RunConfig
from ocrmem.config.kubernetes_section import VolumesSection
from ocrmem.config.kubernetes_values import parse_quantity, parse_secret_env
from ocrmem.console import note
from ocrmem.errors import OcrMemError, Problem

Object = dict[str, Any]


def cluster_problems(config: RunConfig, pauses: Pauses | None = None) -> list[Problem]:
    """Return everything on the cluster that would keep a training job from starting.

    Args:
        config: ``config.kubernetes`` and, for the Secret's keys, what the run will log in to.
        pauses: waiting times, for tests.

    Returns:
        one problem each for: no access, a missing right, namespace, runtime, claim, Secret or key, a quota without
        room, no node with the GPUs, the placeholder image. Empty when a job can be made.
    """
    problems = image_problems(config.kubernetes)
    try:
        api = Api(config.kubernetes, pauses or Pauses())
        lacking = [right for right in _needed(config.kubernetes) if not api.may(*right)]
    except OcrMemError as error:  # nothing else can be asked
        return [*problems, *error.problems]
    for right in lacking:
        problems += api.lacking(*right).problems
    for check, looked_at in _CHECKS:
        if not any(resource is looked_at for resource, _, _ in lacking):
            try:
                problems += check(api, config)
            except OcrMemError as error:
                problems += error.problems
    return problems


def _needed(section: KubernetesSection) -> Iterator[tuple[Resource, str, str]]:
    """Yield the rights that a run uses, with the name of the object where the Role grants one for that alone."""
    names = {SECRETS: section.secret_name, NAMESPACES: section.namespace, RUNTIMES: section.runtime}
    for resource in PERMISSIONS:
        name = names.get(resource) or ""
        if resource.required and (not resource.only or name in resource.only):
            yield from ((resource, verb, name) for verb in resource.verbs)


def image_problems(section: KubernetesSection) -> list[Problem]:
    """Return the placeholder image as a problem; every registry.example.org is reserved (RFC 2606)."""
    if section.image != PLACEHOLDER_IMAGE and not section.image.startswith("registry.example.org/"):
        return []
    message = f"is {section.image}, a placeholder"
    return [Problem("kubernetes.image", message, "Build the Dockerfile, push it to your registry and name it here")]


def _namespace(api: Api, config: RunConfig) -> Iterator[Problem]:
    if _may_look(api, NAMESPACES, api.namespace) and api.get(NAMESPACES, api.namespace) is None:
        message = f"is {api.namespace}, which does not exist"
        yield Problem("kubernetes.namespace", message, "Apply k8s/base, or name the namespace that you use")


def _runtime(api: Api, config: RunConfig) -> Iterator[Problem]:
    runtime = config.kubernetes.runtime
    if _may_look(api, RUNTIMES, runtime) and api.get(RUNTIMES, runtime) is None:
        message = f"is {runtime}, and there is no such ClusterTrainingRuntime"
        yield Problem("kubernetes.runtime", message, "Install Kubeflow Trainer 2.3 or later, and apply k8s/base")


def _may_look(api: Api, resource: Resource, name: str) -> bool:
    """Return whether an object may be read; one that the Role does not name and that may not is left unchecked."""
    if name in resource.only or api.may(resource, "get", name):
        return True
    note(
        f"{resource.name} {name} may not be read with this account, so it is not checked. To have it checked: "
        f"{grant(resource, 'get', name, api.namespace)}"
    )
    return False


def _schemas(api: Api, config: RunConfig) -> Iterator[Problem]:
    """Yield the fields that the server does not know; an older Trainer would drop them silently."""
    served = api.schemas()
    if not served:
        message = "serves no schema of Kubeflow Trainer's API"
        yield Problem(f"Kubernetes API {api.server}", message, "Install Kubeflow Trainer 2.3 or later")
        return
    processes = config.kubernetes.nodes * max(config.kubernetes.gpus_per_node, 1)
    fitting = config.model_copy(update={"train": config.train.model_copy(update={"processes": processes})})
    wanted = {"TrainJob": train_job(fitting, "preflight"), "ClusterTrainingRuntime": RUNTIME_FIELDS}
    for kind, value in wanted.items():
        if missing := unknown_fields(served, kind, value):
            message = f"does not know {', '.join(missing)} of {kind}"
            remedy = "Install Kubeflow Trainer 2.3 or later, its CRDs included: this one drops what it does not know"
            yield Problem(f"Kubernetes API {api.server}", message, remedy)


def _claims(api: Api, config: RunConfig) -> Iterator[Problem]:
    for name in VolumesSection.model_fields:
        claim = getattr(config.kubernetes.volumes, name).claim
        if claim is None:
            continue
        place, found = f"kubernetes.volumes.{name}.claim", api.get(CLAIMS, claim)
        if found is None:
            message = f"is {claim}, and there is no such PersistentVolumeClaim in {api.namespace}"
            yield Problem(place, message, "Apply k8s/base, or name an existing claim")
        elif (found.get("status") or {}).get("phase") == "Lost":
            message = f"is {claim}, which has lost its volume"
            yield Problem(place, message, "Create the claim again, or restore the volume")


def _secrets(api: Api, config: RunConfig) -> Iterator[Problem]:
    """Yield missing Secrets and keys. One that may not be read here is no fault: kubelet reads it by itself."""
    section = config.kubernetes
    wanted: dict[str, dict[str, str]] = {}  # Secret -> key -> the setting that needs it
    for index, text in enumerate(section.secret_env):
        if parsed := parse_secret_env(text):
            wanted.setdefault(parsed[1], {})[parsed[2]] = f"kubernetes.secret_env.{index}"
    for name in section.image_pull_secrets:
        wanted.setdefault(name, {})[".dockerconfigjson"] = "kubernetes.image_pull_secrets"
    given = {*section.env, *(text.partition("=")[0] for text in section.secret_env)}
    if config.tracking.wandb == "online" and "WANDB_API_KEY" not in given:
        if section.secret_name and "WANDB_API_KEY" in section.secret_variables:
            wanted.setdefault(section.secret_name, {})["WANDB_API_KEY"] = "tracking.wandb"
        else:
            remedy = "Name it in kubernetes.secret_variables or kubernetes.secret_env"
            yield Problem("tracking.wandb", "is online, and no Secret gives the pods WANDB_API_KEY", remedy)
    for name, keys in wanted.items():
        if not _may_look(api, SECRETS, name):
            continue
        found = api.get(SECRETS, name)
        if found is None:
            message = f"needs the Secret {name}, which does not exist in {api.namespace}"
            yield Problem(next(iter(keys.values())), message, "Create it (k8s/examples shows how)")
            continue
        there = set(found.get("data") or {})
        for key, setting in keys.items():
            if key not in there:
                message = f"needs the key {key} of the Secret {name}, which has no such key"
                yield Problem(setting, message, "Add it to the Secret, or correct the setting")


def _quotas(api: Api, config: RunConfig) -> Iterator[Problem]:
    """Yield quotas without room for all pods at once; they count `requests.` and, without a prefix, requests too."""
    section = config.kubernetes
    needed = {
        "pods": Decimal(section.nodes),
        f"requests.{section.gpu_resource}": Decimal(section.gpus_per_node * section.nodes),
    }
    for name in ("cpu", "memory"):
        asked = (parse_quantity(getattr(section, name)) or Decimal(0)) * section.nodes
        limit = (
            parse_quantity(getattr(section, f"{name}_limit") or getattr(section, name)) or Decimal(0)
        ) * section.nodes
        needed |= {name: asked, f"requests.{name}": asked, f"limits.{name}": limit}
    for quota in api.list(QUOTAS):
        status = quota.get("status") or {}
        for name, hard in (status.get("hard") or {}).items():
            if name not in needed:
                continue
            used = (status.get("used") or {}).get(name, "0")
            room = (parse_quantity(hard) or Decimal(0)) - (parse_quantity(used) or Decimal(0))
            if needed[name] > room:
                message = f"leaves {_shown(room)} of {name} ({used} of {hard} are used), and the job needs "
                message += _shown(needed[name])
                remedy = (
                    "Wait until others are done, ask for less (nodes, gpus_per_node, cpu, memory), or raise the quota"
                )
                yield Problem(f"ResourceQuota {quota['metadata']['name']}", message, remedy)


def _nodes(api: Api, config: RunConfig) -> Iterator[Problem]:
    section = config.kubernetes
    if not section.gpus_per_node:
        return
    if not api.may(NODES, "list"):
        note("Nodes may not be listed with this account, so it is not checked whether one has the GPUs")
        return
    labels = section.node_selector.items()
    fitting, most = 0, Decimal(0)
    for node in api.list(NODES):
        has = parse_quantity(
            (node.get("status") or {}).get("allocatable", {}).get(section.gpu_resource, "0")
        ) or Decimal(0)
        if labels <= (node["metadata"].get("labels") or {}).items():
            most = max(most, has)
            fitting += has >= section.gpus_per_node
    if fitting < section.nodes:
        message = (
            f"asks for {section.nodes} nodes with {section.gpus_per_node} {section.gpu_resource} each; {fitting} have "
            f"so many, the largest has {_shown(most)}"
        )
        remedy = "Correct gpu_resource, gpus_per_node or node_selector; with an autoscaler that adds nodes, continue"
        yield Problem("kubernetes.gpus_per_node", message, remedy)


_CHECKS: tuple[tuple[Callable[[Api, RunConfig], Iterator[Problem]], Resource | None], ...] = (
    (_namespace, NAMESPACES),
    (_runtime, RUNTIMES),
    (_schemas, None),
    (_claims, CLAIMS),
    (_secrets, SECRETS),
    (_quotas, QUOTAS),
    (_nodes, NODES),
)


def _shown(number: Decimal) -> str:
    if number >= 2**30:
        return f"{number / 2**30:.1f} Gi"
    return f"{number.normalize():f}"
