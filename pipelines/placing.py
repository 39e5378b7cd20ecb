"""Place tasks in a cluster: image, user, volumes, secret, GPUs, timeouts and retries."""

import math
import re
from dataclasses import dataclass

from kfp import dsl, kubernetes

from ocrmem.config.kubernetes_section import VolumesSection
from ocrmem.config.kubernetes_values import parse_quantity
from ocrmem.facts import RUN_ID
from ocrmem.steps import Step
from ocrmem.workflow.compile_settings import PipelineSettings

# Keys of the secret, each optional; docs/pipelines.md says what each is for.
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
_VOLUMES = VolumesSection()
_DATASET, _FEATURES = _VOLUMES.dataset.path, _VOLUMES.features.path
_OUTPUT, _MODELS, _DATA = _VOLUMES.output.path, _VOLUMES.models.path, "/workspace/data"


@dataclass(frozen=True)
class Placing:
    """What the tasks of one pipeline share.

    Attributes:
        settings: fixed at compile time.
        image, secret, gpus, gpu_type, tolerations, node_selector: parameters of the pipeline; the last four are for
            tasks that use GPUs where there are some. With ``gpus`` "0" they run on the CPU.
    """

    settings: PipelineSettings
    image: str
    secret: str
    gpus: str
    gpu_type: str
    tolerations: list
    node_selector: dict

    def place(self, task: dsl.PipelineTask, step: Step | None, *, cached: bool | None = None) -> dsl.PipelineTask:
        """Place a task as its step asks for.

        Args:
            step: None: the exit handler.
            cached: instead of what the step says.
        """
        settings = self.settings
        task.set_container_image(self.image)
        task.set_caching_options((step is not None and step.cached) if cached is None else cached)
        _request(task, settings.cpu, settings.memory)
        if step is not None and step.network and settings.retries:
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
        if step is not None and step.name == "train":
            self._place_training(task)
        elif step is not None and step.gpu:
            self._give_gpus(task)
        return task

    def _give_gpus(self, task: dsl.PipelineTask) -> None:
        task.set_accelerator_type(self.gpu_type)
        task.set_accelerator_limit(self.gpus)
        # kfp 2.17 forgets to hand these two down to tasks within an exit handler.
        task.register_pipeline_channels([self.gpu_type, self.gpus])
        _request(task, self.settings.gpu_cpu, self.settings.gpu_memory)
        kubernetes.add_toleration_json(task, self.tolerations)
        kubernetes.add_node_selector_json(task, self.node_selector)
        kubernetes.empty_dir_mount(
            task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=self.settings.shm_size
        )

    def _place_training(self, task: dsl.PipelineTask) -> None:
        """Training in this pod; or following a TrainJob, which needs no GPU but the volumes of the job's pods."""
        if self.settings.launcher == "local":
            self._give_gpus(task)
        else:
            for path, claim in ((_DATASET, self.settings.dataset_claim), (_FEATURES, self.settings.features_claim)):
                kubernetes.mount_pvc(task, pvc_name=claim, mount_path=path)
        kubernetes.set_timeout(task, self.settings.train_timeout)

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


def _request(task: dsl.PipelineTask, cpu: str, memory: str) -> None:
    """Request cores and memory; what kfp has no form for, such as 1.5Gi, is written out in cores or bytes."""
    task.set_cpu_request(cpu if re.fullmatch(r"(\d*\.)?\d+m?", cpu) else f"{parse_quantity(cpu):f}")
    in_kfp = re.fullmatch(r"\d+([EPTGM]i?|Ki)?", memory)
    task.set_memory_request(memory if in_kfp else str(math.ceil(parse_quantity(memory))))
