"""Compile-time settings: those that Kubeflow Pipelines cannot take as parameters of a run.

Everything else (settings of the run, data, image, GPUs, tolerations, node selector, secret) is a parameter of the
pipeline.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from ocrmem.config import PLACEHOLDER_IMAGE, Section
from ocrmem.config.field_faults import check_fields
from ocrmem.config.kubernetes_section import VolumesSection
from ocrmem.config.kubernetes_values import ObjectName, OptionalName, Quantity
from ocrmem.config.settings_file import Overrides, RawSettings, apply_overrides, read_settings
from ocrmem.errors import ConfigError

_VOLUMES = VolumesSection()


class PipelineSettings(Section):
    """Compile-time settings; `ocrmem pipeline compile --set name=value`."""

    image: str = PLACEHOLDER_IMAGE  # default of the parameter `image`
    launcher: Literal["local", "kubernetes"] = "local"  # train in the task's pod, or in a TrainJob of its own
    output_claim: OptionalName = _VOLUMES.output.claim  # volume for records, checkpoints and reports of failed tasks
    models_claim: OptionalName = _VOLUMES.models.claim  # volume for the Hugging Face cache
    data_claim: OptionalName = None  # volume with conversations, mounted at /workspace/data
    dataset_claim: ObjectName = str(_VOLUMES.dataset.claim)  # launcher kubernetes: what the TrainJob's pods mount
    features_claim: ObjectName = str(_VOLUMES.features.claim)
    scratch_size: Quantity = "20Gi"  # of /tmp
    storage_class: OptionalName = None  # given: /tmp is a volume of this class instead of the node's disk
    shm_size: Quantity = "8Gi"  # of /dev/shm in tasks with GPUs
    cpu: Quantity = "1"  # requested by tasks without a GPU
    memory: Quantity = "4Gi"
    gpu_cpu: Quantity = "4"  # requested by tasks that may have GPUs
    gpu_memory: Quantity = "16Gi"
    timeout: PositiveInt = 4 * 3600  # seconds; of every task but train
    train_timeout: PositiveInt = 48 * 3600  # seconds
    retries: NonNegativeInt = 2  # of tasks that touch the network, and of train
    labels: dict[str, str] = Field(default={"app.kubernetes.io/part-of": "ocrmem"})  # of every pod
    user: PositiveInt = 10001  # uid and gid of every pod


def load_settings(path: Path | None, overrides: Overrides = ()) -> PipelineSettings:
    """Read compile-time settings: a YAML file, if one is given, and ``name=value`` overrides.

    Raises:
        ConfigError: with every fault.
    """
    settings = read_settings(path, overrides) if path else apply_overrides(RawSettings(), overrides)
    chosen, faults, _ = check_fields(PipelineSettings, settings)
    if problems := [*settings.problems, *faults]:
        raise ConfigError(problems)
    return chosen
