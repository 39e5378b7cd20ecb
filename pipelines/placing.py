"""How a task is placed in a cluster: image, user, volumes, secret, GPUs, timeouts and retries."""

import math
import re
from dataclasses import dataclass

from kfp import dsl, kubernetes

from ocrmem.config.kubernetes_values import parse_quantity
from ocrmem.workflow.records import RUN_ID
from ocrmem.workflow.settings import PipelineSettings

# Keys of the secret, each optional; docs/pipelines.md says who reads which.
SECRET_KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL",
    "HF_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MODEL_REGISTRY_TOKEN",
    "WANDB_API_KEY",
)
_DATASET, _FEATURES = "/workspace/dataset", "/workspace/features"
_OUTPUT, _MODELS, _DATA = "/workspace/output", "/workspace/models", "/workspace/data"


def _request(task: dsl.PipelineTask, cpu: str, memory: str) -> None:
    """Request cores and memory; what kfp has no form for, such as 1.5Gi, is written out in cores or bytes."""
    task.set_cpu_request(cpu if re.fullmatch(r"(\d*\.)?\d+m?", cpu) else f"{parse_quantity(cpu):f}")
    in_kfp = re.fullmatch(r"\d+([EPTGM]i?|Ki)?", memory)
    task.set_memory_request(memory if in_kfp else str(math.ceil(parse_quantity(memory))))


@dataclass(frozen=True)
class Placing:
    """What the tasks of one pipeline share.

    Attributes:
        settings: fixed at compile time.
        image, secret: parameters of the pipeline.
    """

    settings: PipelineSettings
    image: str
    secret: str

    def place(self, task: dsl.PipelineTask, *, cached: bool, network: bool = False) -> dsl.PipelineTask:
        """A task that needs no GPU.

        Args:
            cached: whether its outputs depend on its inputs alone, so that they may be used again.
            network: whether it talks to something that may be away for a moment, so that it is tried again.
        """
        settings = self.settings
        task.set_container_image(self.image)
        task.set_caching_options(cached)
        _request(task, settings.cpu, settings.memory)
        if network and settings.retries:
            task.set_retry(settings.retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")
        kubernetes.set_security_context(
            task, run_as_user=settings.user, run_as_group=settings.user, run_as_non_root=True
        )
        kubernetes.set_timeout(task, settings.timeout)
        for key, value in settings.labels.items():
            kubernetes.add_pod_label(task, key, value)
        keys = {key: key for key in SECRET_KEYS}
        kubernetes.use_secret_as_env(task, secret_name=self.secret, secret_key_to_env=keys, optional=True)
        self._mount(task)
        return task

    def place_on_gpu(
        self,
        task: dsl.PipelineTask,
        *,
        cached: bool,
        gpus: str,
        gpu_type: str,
        tolerations: list,
        node_selector: dict,
        network: bool = False,
    ) -> dsl.PipelineTask:
        """A task that uses GPUs where there are some; with ``gpus`` "0" it runs on the CPU."""
        self.place(task, cached=cached, network=network)
        task.set_accelerator_type(gpu_type)
        task.set_accelerator_limit(gpus)
        # kfp 2.17 forgets to hand these two down to tasks within an exit handler.
        task.register_pipeline_channels([gpu_type, gpus])
        _request(task, self.settings.gpu_cpu, self.settings.gpu_memory)
        kubernetes.add_toleration_json(task, tolerations)
        kubernetes.add_node_selector_json(task, node_selector)
        kubernetes.empty_dir_mount(
            task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=self.settings.shm_size
        )
        return task

    def place_training(self, task: dsl.PipelineTask, **gpu) -> dsl.PipelineTask:
        """Training in this pod; or following a TrainJob, which needs no GPU but the volumes of the job's pods."""
        if self.settings.launcher == "local":
            self.place_on_gpu(task, cached=False, network=True, **gpu)
        else:
            self.place(task, cached=False, network=True)
            for path, claim in ((_DATASET, self.settings.dataset_claim), (_FEATURES, self.settings.features_claim)):
                kubernetes.mount_pvc(task, pvc_name=claim, mount_path=path)
        kubernetes.set_timeout(task, self.settings.train_timeout)
        return task

    def _mount(self, task: dsl.PipelineTask) -> None:
        settings = self.settings
        claims = {_MODELS: settings.models_claim, _DATA: settings.data_claim}
        if settings.output_claim:
            claims[_OUTPUT] = settings.output_claim
            kubernetes.use_field_path_as_env(task, RUN_ID, "metadata.labels['pipeline/runid']")
        for path, claim in claims.items():
            if claim:
                kubernetes.mount_pvc(task, pvc_name=claim, mount_path=path)
        if settings.storage_class:
            kubernetes.add_ephemeral_volume(
                task,
                volume_name="scratch",
                mount_path="/tmp",
                access_modes=["ReadWriteOnce"],
                size=settings.scratch_size,
                storage_class_name=settings.storage_class,
            )
        else:
            kubernetes.empty_dir_mount(task, volume_name="scratch", mount_path="/tmp", size_limit=settings.scratch_size)
