"""Make the TrainJob of a run, as a plain dict that reads like the YAML it becomes.

The ClusterTrainingRuntime (k8s/base) holds what is the same for every run and what a TrainJob
cannot say: torchrun's policy, security contexts, image pull policy, restarts inside the cluster (the JobSet's
failurePolicy, the Job's backoffLimit and podFailurePolicy), a PriorityClass. The TrainJob holds the run: image,
command, nodes, resources, volumes, environment, placement, deadlines.

The kubeflow SDK's `TrainerClient.train` cannot say enough (0.5.0): its trainer takes environment variables as text
only, so no Secret, and one figure for requests and limits; its pod patch has no termination grace period; it calls
the API server before it has anything to print, so there is no dry run; and it hides why a call was refused (409 and
403 are both "Failed to create"). So the manifest is made here, without the SDK, checked with its API models
(`ocrmem.cluster.sdk_models`), and sent as the SDK sends it. A whole Secret (envFrom) can be said in neither, so
``kubernetes.secret_variables`` lists the keys.

The run's settings travel as an annotation of the pod template, which the downward API shows to the container as a
file. That needs no second object that must be created, owned and removed with the job, nor a right to create one; and
`settings_of` reads them back to see whether a job of the same name is the same run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ocrmem.cluster.permissions import TRAINER
from ocrmem.config import KubernetesSection, RunConfig, VolumeSection
from ocrmem.config.kubernetes_section import VolumesSection
from ocrmem.config.kubernetes_values import parse_secret_env, parse_toleration
from ocrmem.errors import ConfigError
from ocrmem.files import sha256_json

Object = dict[str, Any]
API_VERSION = f"{TRAINER}/v1alpha1"
KIND = "TrainJob"
NODE = "node"  # the replicated job, and its container, of Trainer's runtimes for torch
MANAGER = "ocrmem.io/launcher"  # Trainer's webhook wants a domain-prefixed path
PARAMS = "ocrmem/params.yaml"
PARAMS_DIR = "/etc/ocrmem"
QUEUE = "kueue.x-k8s.io/queue-name"
PRIORITY = "kueue.x-k8s.io/priority-class"
# The longest name of a pod that JobSet makes of it ("-node-0-" and an index, then a hash) must fit into 63.
_RUN_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
# They steer the launcher and change nothing in the job.
_LAUNCHER_ONLY = (
    "context",
    "backoff_limit",
    "pending_timeout_seconds",
    "api_timeout_seconds",
    "on_interrupt",
)


def run_name_for(config: RunConfig) -> str:
    """Return a name made of the settings: the same settings find their job again, others get one of their own."""
    return f"train-{sha256_json(_comparable(config.as_dict()))[:10]}"


def train_job(config: RunConfig, run_name: str) -> Object:
    """Return the TrainJob of a run.

    Args:
        run_name: name of the TrainJob, and of the run's folder on the output volume.

    Raises:
        ConfigError: the name cannot be one, or settings do not fit a job on the cluster.
    """
    if not _RUN_NAME.fullmatch(run_name):
        message = f"is {run_name!r}, which cannot be the name of a TrainJob"
        remedy = "Use up to 40 lower-case letters, digits and -, beginning with a letter"
        raise ConfigError.of("--run-name", message, remedy)
    section = config.kubernetes
    labels = _labels(section, run_name)
    job: Object = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": run_name, "namespace": section.namespace, "labels": labels},
        "spec": {
            "runtimeRef": {"apiGroup": TRAINER, "kind": "ClusterTrainingRuntime", "name": section.runtime},
            "trainer": {
                "image": section.image,
                "command": ["ocrmem"],
                "args": ["train", "--config", f"{PARAMS_DIR}/params.yaml", "--nproc", "auto", "--resume"],
                "numNodes": section.nodes,
                # Without it Trainer starts a process a core where no resource is named "gpu": on CPUs and MIG slices.
                "numProcPerNode": config.train.processes // section.nodes,
                "resourcesPerNode": _resources(section),
                "env": list(_environment(section)),
            },
            "runtimePatches": [
                {
                    "manager": MANAGER,
                    "trainingRuntimeSpec": {
                        "template": {
                            "spec": {
                                "replicatedJobs": [
                                    {
                                        "name": NODE,
                                        "template": {"spec": {"template": _pod_template(config, run_name, labels)}},
                                    }
                                ]
                            }
                        }
                    },
                }
            ],
        },
    }
    if section.active_deadline_seconds is not None:
        job["spec"]["activeDeadlineSeconds"] = section.active_deadline_seconds
    return job


def pod_settings(config: RunConfig, run_name: str) -> RunConfig:
    """Return the settings as the pods read them: paths lie on the volumes, the run's own under its name.

    A path that already lies on its volume stays, so a dataset in a folder of the volume can be named.
    """
    section = config.kubernetes
    processes = section.nodes * max(section.gpus_per_node, 1)
    if config.train.processes != processes:
        raise ConfigError.of(
            "train.processes",
            f"is {config.train.processes}, but kubernetes.nodes {section.nodes} x kubernetes.gpus_per_node "
            f"{section.gpus_per_node} make {processes} (without GPUs one process a node)",
            "Make them agree: the global batch is per_device_batch_size x gradient_accumulation_steps x processes",
        )
    _refuse_files_of_this_machine(config)
    values = config.as_dict()
    for name in ("dataset", "features", "models"):
        volume: VolumeSection = getattr(section.volumes, name)
        if volume.claim and not PurePosixPath(values["paths"][name]).is_relative_to(volume.path):
            values["paths"][name] = volume.path
    home = run_folder(section, run_name)
    values["paths"] |= {
        "adapter": f"{home}/adapter",
        "checkpoints": f"{home}/checkpoints",
        "reports": home,
        "tracking": f"{home}/wandb",
    }
    return RunConfig.from_dict(values, place="settings of the pods")


def _refuse_files_of_this_machine(config: RunConfig) -> None:
    """Refuse relative paths, which pods would look for in their working directory; absolute ones can be on a volume."""
    files = {
        "train.deepspeed": config.train.deepspeed,
        "render.atlas": config.render.atlas,
        "model.base_model_name": config.model.base_model_name,
        "model.ocr_model_name": config.model.ocr_model_name,
    }
    for field, value in files.items():
        if value and Path(value).exists() and not Path(value).is_absolute():
            message = f"is {value}, a file or directory of this machine, which the pods do not have"
            remedy = "Put it on a volume that is mounted at the same place here and there, and give the absolute path"
            raise ConfigError.of(field, message, remedy)


def run_folder(section: KubernetesSection, run_name: str) -> str:
    """Return where a run writes, inside the pods."""
    return str(PurePosixPath(section.volumes.output.path) / run_name)


def settings_of(job: Object) -> Object | None:
    """Return the settings that a TrainJob was made of; None if ocrmem did not create it."""
    for patch in job["spec"].get("runtimePatches") or []:
        if patch["manager"] == MANAGER:
            pods = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
            return yaml.safe_load(pods["metadata"]["annotations"][PARAMS])
    return None


def differences(there: Object, here: Object) -> list[str]:
    """Return what differs between two runs' settings, one readable line each."""
    old, new = (dict(flat(_comparable(values))) for values in (there, here))
    return [
        f"{name} is {old.get(name, 'not set')} there and {new.get(name, 'not set')} here"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def as_yaml(job: Object) -> str:
    """Return a manifest as a person writes it: in order, and settings as a block of lines."""

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump(job, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def _labels(section: KubernetesSection, run_name: str) -> dict[str, str]:
    labels = {
        **section.labels,
        "app.kubernetes.io/name": "ocrmem",
        "app.kubernetes.io/component": "training",
        "app.kubernetes.io/instance": run_name,
    }
    kueue = {QUEUE: section.queue, PRIORITY: section.priority}
    return labels | {key: value for key, value in kueue.items() if value}


def _resources(section: KubernetesSection) -> Object:
    gpus = {section.gpu_resource: str(section.gpus_per_node)} if section.gpus_per_node else {}
    return {
        "requests": {"cpu": section.cpu, "memory": section.memory, **gpus},
        "limits": {
            "cpu": section.cpu_limit or section.cpu,
            "memory": section.memory_limit or section.memory,
            **gpus,
        },
    }


def _environment(section: KubernetesSection) -> Iterator[Object]:
    plain = dict(section.env)
    if section.volumes.models.claim:
        plain = {"HF_HOME": f"{section.volumes.models.path}/hub"} | plain
    for name, value in plain.items():
        yield {"name": name, "value": value}
    parsed = [found for text in section.secret_env if (found := parse_secret_env(text))]  # the rules refuse the rest
    for variable, secret, key in parsed:
        yield {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
    if section.secret_name:
        for name in section.secret_variables:
            if name not in {variable for variable, _, _ in parsed}:
                source = {"name": section.secret_name, "key": name, "optional": True}
                yield {"name": name, "valueFrom": {"secretKeyRef": source}}


def _pod_template(config: RunConfig, run_name: str, labels: dict[str, str]) -> Object:
    section = config.kubernetes
    params = yaml.safe_dump(pod_settings(config, run_name).as_dict(), sort_keys=False, allow_unicode=True)
    annotation = {"path": "params.yaml", "fieldRef": {"fieldPath": f"metadata.annotations['{PARAMS}']"}}
    volumes: list[Object] = [{"name": "params", "downwardAPI": {"items": [annotation]}}]
    mounts: list[Object] = [{"name": "params", "mountPath": PARAMS_DIR, "readOnly": True}]
    for name in VolumesSection.model_fields:
        volume: VolumeSection = getattr(section.volumes, name)
        if volume.claim:
            source = {"claimName": volume.claim, "readOnly": volume.read_only}
            volumes.append({"name": name, "persistentVolumeClaim": source})
            mounts.append({"name": name, "mountPath": volume.path, "readOnly": volume.read_only})
    if section.shm_size:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": section.shm_size}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    spec: Object = {
        "serviceAccountName": section.service_account,
        "terminationGracePeriodSeconds": section.termination_grace_seconds,
        "volumes": volumes,
        "containers": [{"name": NODE, "volumeMounts": mounts}],
    }
    optional = {
        "nodeSelector": dict(section.node_selector),
        "tolerations": [parse_toleration(text) for text in section.tolerations],
        "imagePullSecrets": [{"name": name} for name in section.image_pull_secrets],
    }
    spec |= {key: value for key, value in optional.items() if value}
    return {"metadata": {"labels": labels, "annotations": {PARAMS: params}}, "spec": spec}


def _comparable(settings: Object) -> Object:
    section = {key: value for key, value in settings.get("kubernetes", {}).items() if key not in _LAUNCHER_ONLY}
    return {**settings, "kubernetes": section}


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and leaves of nested dicts and lists."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    if not items:
        yield prefix, value
    for key, item in items:
        yield from flat(item, f"{prefix}.{key}" if prefix else str(key))
