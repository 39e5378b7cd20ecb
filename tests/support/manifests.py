"""The files of k8s/ as objects: read, built with kubectl, validated against their API, taken apart into pods."""

from __future__ import annotations

import copy
import functools
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

Object = dict[str, Any]
ROOT = Path(__file__).resolve().parent.parent.parent
K8S = ROOT / "k8s"
OVERLAYS = [K8S / "overlays" / "dev", K8S / "overlays" / "gpu-8"]
KUSTOMIZATIONS = sorted(path.parent for path in K8S.rglob("kustomization.yaml"))
# A component is built as part of what names it.
BUILDABLE = [path for path in KUSTOMIZATIONS if "components" not in path.parts]
# podFailurePolicy is stable from 1.31 on; the newest that is known here.
KUBERNETES = ("1.31", kubernetes_validate.latest_version())


def documents(path: Path) -> list[Object]:
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def kustomization(directory: Path) -> Object:
    return documents(directory / "kustomization.yaml")[0]


def resource_files() -> list[Path]:
    """Every file that a kustomization lists as a resource."""
    return sorted(
        directory / name
        for directory in KUSTOMIZATIONS
        for name in kustomization(directory).get("resources", [])
        if name.endswith(".yaml")
    )


@functools.cache
def _built(directory: Path) -> str:
    command = ["kubectl", "kustomize", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def built(directory: Path) -> list[Object]:
    """What `kubectl kustomize` makes of a directory."""
    return [one for one in yaml.safe_load_all(_built(directory)) if one]


def has_kubectl() -> bool:
    return shutil.which("kubectl") is not None


def identity(thing: Object) -> tuple[str, str]:
    return thing["kind"], thing["metadata"]["name"]


def of_kind(things: list[Object], kind: str) -> list[Object]:
    return [thing for thing in things if thing["kind"] == kind]


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and leaves of nested dicts and lists."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not items:
        yield prefix, value
    for key, item in items:
        yield from leaves(item, f"{prefix}.{key}" if prefix else str(key))


def lost_keys(given: Object, kept: Object) -> list[str]:
    """Names that a model dropped or changed: what it does not know."""
    there = dict(leaves(kept))
    return [name for name, value in leaves(given) if there.get(name) != value]


def validate(thing: Object, versions: Sequence[str] = KUBERNETES) -> None:
    """Hold an object against its API, strictly: unknown fields are faults.

    Raises:
        AssertionError, or the validator's own error.
    """
    model = _models().get(identity(thing)[0])
    if model is None:
        for version in versions:
            kubernetes_validate.validate(thing, version, strict=True)
    else:
        lost = lost_keys(thing, model(thing))
        assert not lost, f"{identity(thing)}: the API does not know {lost}"
        for pod in pods_of(thing):  # of a core kind it has been seen already
            pod.validate(versions)


@functools.cache
def _models() -> dict[str, Any]:
    """For each kind that is no core kind: dict to model and back."""
    from hera.workflows import models as argo
    from kubeflow_trainer_api import models as trainer

    def kubeflow(model: Any) -> Any:
        return lambda thing: model.from_dict(thing).to_dict()

    def hera(model: Any) -> Any:
        return lambda thing: model.model_validate(thing).model_dump(mode="json", by_alias=True, exclude_none=True)

    return {
        "TrainJob": kubeflow(trainer.TrainerV1alpha1TrainJob),
        "ClusterTrainingRuntime": kubeflow(trainer.TrainerV1alpha1ClusterTrainingRuntime),
        "WorkflowTemplate": hera(argo.WorkflowTemplate),
        "CronWorkflow": hera(argo.CronWorkflow),
    }


@dataclass(frozen=True)
class Pod:
    """A pod as a controller would make it.

    Attributes:
        owner: kind and name of the object that it is made from.
    """

    owner: str
    labels: dict[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def validate(self, versions: Sequence[str] = KUBERNETES) -> None:
        name = self.owner.lower().replace("/", "-").replace(" ", "-")
        thing = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": self.labels}}
        for version in versions:
            kubernetes_validate.validate(thing | {"spec": self.spec}, version, strict=True)


def pods_of(thing: Object) -> list[Pod]:
    """The pods that an object makes; of a TrainJob see `training_pod`."""
    kind, name = identity(thing)
    owner = f"{kind}/{name}"
    if kind in ("Deployment", "Job"):
        template = thing["spec"]["template"]
        return [Pod(owner, template["metadata"]["labels"], template["spec"])]
    if kind == "ClusterTrainingRuntime":
        return [
            Pod(f"{owner} {job['name']}", _template(job)["metadata"]["labels"], _template(job)["spec"])
            for job in thing["spec"]["template"]["spec"]["replicatedJobs"]
        ]
    if kind == "WorkflowTemplate":
        return [
            Pod(f"{owner} {one['name']}", thing["spec"]["podMetadata"]["labels"], _workflow_pod(thing["spec"], one))
            for one in thing["spec"]["templates"]
            if "container" in one
        ]
    return []


def _template(replicated_job: Object) -> Object:
    return replicated_job["template"]["spec"]["template"]


def _workflow_pod(spec: Object, template: Object) -> Object:
    """Argo names the container "main" and adds the volumes of the claim templates; what it adds itself is left out."""
    claims = [
        {"name": one["metadata"]["name"], "persistentVolumeClaim": {"claimName": f"made-{one['metadata']['name']}"}}
        for one in spec.get("volumeClaimTemplates", [])
    ]
    return {
        "restartPolicy": "Never",
        "serviceAccountName": spec["serviceAccountName"],
        "securityContext": spec["securityContext"],
        "volumes": [*spec["volumes"], *claims],
        "containers": [{"name": "main", **template["container"]}],
    }


def training_pod(job: Object, runtime: Object) -> Pod:
    """The pod of a TrainJob's node: the runtime's template, the job's patches, then its trainer."""
    [replicated] = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    template = copy.deepcopy(_template(replicated))
    for patch in job["spec"]["runtimePatches"]:
        for patched in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]:
            assert patched["name"] == replicated["name"]
            template = _merged(template, _template(patched), "")
    [container] = template["spec"]["containers"]
    trainer = job["spec"]["trainer"]
    container |= {"image": trainer["image"], "command": trainer["command"], "args": trainer["args"]}
    container["resources"] = trainer["resourcesPerNode"]
    container["env"] = [*container.get("env", []), *trainer["env"]]
    return Pod(f"TrainJob/{job['metadata']['name']}", template["metadata"]["labels"], template["spec"])


# Lists of the pod's API that strategic merge takes for maps, with what they are keyed by.
_MERGE_KEYS = {"containers": "name", "volumes": "name", "volumeMounts": "mountPath", "env": "name"}


def _merged(old: Any, new: Any, field: str) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _merged(old[key], value, key) if key in old else value for key, value in new.items()}}
    key = _MERGE_KEYS.get(field)
    if key is None or not isinstance(old, list):
        return new
    found = {one[key]: one for one in old}
    found |= {one[key]: _merged(found[one[key]], one, "") if one[key] in found else one for one in new}
    return list(found.values())
