"""The section `kubernetes`: training as a Kubeflow TrainJob."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationInfo, field_validator

from ocrmem.config.kubernetes_values import (
    GpuResource,
    Image,
    ObjectName,
    OptionalName,
    Quantity,
    SecretVariable,
    Toleration,
)
from ocrmem.config.section import Section

PLACEHOLDER_IMAGE = "registry.example.org/ocrmem:0.1.0"


class VolumeSection(Section):
    """A PersistentVolumeClaim in the pods of a training job."""

    claim: OptionalName
    """PersistentVolumeClaim; null: not mounted."""
    path: str
    """Where it is mounted: an absolute path."""
    read_only: bool
    """Mounted read-only."""


class VolumesSection(Section):
    """Volumes of a training job, from which `paths.*` in its pods are made; with `claim: null` one is not mounted."""

    dataset: VolumeSection = VolumeSection(claim="ocrmem-dataset", path="/workspace/dataset", read_only=True)
    """The dataset, read by every pod."""
    features: VolumeSection = VolumeSection(claim="ocrmem-features", path="/workspace/features", read_only=True)
    """The feature store, read by every pod."""
    models: VolumeSection = VolumeSection(claim="ocrmem-models", path="/workspace/models", read_only=False)
    """The tiny models, and the hub's cache in `hub`."""
    output: VolumeSection = VolumeSection(claim="ocrmem-output", path="/workspace/output", read_only=False)
    """Adapters and checkpoints, a folder for each run; must be mounted and writable."""

    @field_validator("*", mode="before")
    @classmethod
    def _complete(cls, volume: Any, info: ValidationInfo) -> Any:
        """Give what is left out of a volume that volume's own default."""
        default: VolumeSection = cls.model_fields[info.field_name or ""].default
        return default.model_dump() | volume if isinstance(volume, dict) else volume


class KubernetesSection(Section):
    """[Training as a Kubeflow TrainJob](kubernetes.md)."""

    context: str | None = None
    """Of the kubeconfig; null: the current one, or the pod's service account."""
    namespace: ObjectName = "ocrmem"
    """Namespace of the TrainJob."""
    image: Image = PLACEHOLDER_IMAGE
    """Image of the pods; the default is a placeholder."""
    image_pull_secrets: list[ObjectName] = Field(default=[])
    """Secrets for a private registry."""
    runtime: ObjectName = "ocrmem-deepspeed"
    """The ClusterTrainingRuntime."""
    nodes: PositiveInt = 1
    """Pods, usually a node each."""
    gpus_per_node: NonNegativeInt = 1
    """GPUs and processes of a pod; 0: CPU, one process."""
    gpu_resource: GpuResource = "nvidia.com/gpu"
    """What the nodes call their GPUs."""
    cpu: Quantity = "4"
    """Cores of a pod."""
    memory: Quantity = "32Gi"
    """Memory of a pod, /dev/shm included."""
    cpu_limit: Quantity | None = None
    """Limit of cores; null: as requested."""
    memory_limit: Quantity | None = None
    """Limit of memory; null: as requested."""
    shm_size: Quantity | None = "8Gi"
    """Size of /dev/shm; null: the container engine's (often 64 MiB)."""
    volumes: VolumesSection = VolumesSection()
    secret_name: OptionalName = "ocrmem-secrets"
    """Secret whose `secret_variables` become environment variables; null: none."""
    secret_variables: list[str] = Field(
        default=[
            "WANDB_API_KEY",
            "HF_TOKEN",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "MLFLOW_TRACKING_USERNAME",
            "MLFLOW_TRACKING_PASSWORD",
        ]
    )
    """Keys of `secret_name`; missing ones are left out."""
    secret_env: list[SecretVariable] = Field(default=[])
    """`VARIABLE=SECRET/KEY`, without which the pods do not start; goes before `secret_variables`."""
    env: dict[str, str] = Field(default={})
    """Plain environment variables."""
    tolerations: list[Toleration] = Field(default=[])
    """As `kubectl taint` writes them: `key=value:Effect`, `key:Effect` or `key`."""
    node_selector: dict[str, str] = Field(default={})
    """Labels that the nodes must have."""
    labels: dict[str, str] = Field(default={})
    """Labels of the TrainJob and its pods."""
    queue: OptionalName = None
    """Kueue's LocalQueue; null: none."""
    priority: OptionalName = None
    """Kueue's WorkloadPriorityClass; null: none."""
    service_account: ObjectName = "ocrmem"
    """Service account of the pods."""
    termination_grace_seconds: PositiveInt = 120
    """Seconds from SIGTERM to SIGKILL; a checkpoint must fit in."""
    active_deadline_seconds: PositiveInt | None = None
    """Seconds after which the job fails; null: no limit."""
    backoff_limit: NonNegativeInt = 3
    """Restarts by the launcher after a preemption or a lost node."""
    pending_timeout_seconds: PositiveInt = 600
    """Seconds that a pod may be unschedulable or stuck before its start."""
    api_timeout_seconds: PositiveInt = 600
    """Seconds that the API server may not answer."""
    on_interrupt: Literal["keep", "delete"] = "keep"
    """Whether to `keep` or `delete` the job when the launcher is stopped."""
