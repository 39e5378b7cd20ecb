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

    image: str = PLACEHOLDER_IMAGE
    """Default of the parameter `image`."""
    launcher: Literal["local", "kubernetes"] = "local"
    """Train in the task's pod (`local`) or in a TrainJob (`kubernetes`)."""
    output_claim: OptionalName = "ocrmem-output"
    """Volume at /workspace/output: records, checkpoints, reports of failed tasks; null: the summary has the run's state
    only."""
    models_claim: OptionalName = "ocrmem-models"
    """Volume at /workspace/models, the Hugging Face cache; null: none."""
    data_claim: OptionalName = None
    """Volume at /workspace/data with your conversations; null: none."""
    dataset_claim: ObjectName = "ocrmem-dataset"
    """Volume at /workspace/dataset of a TrainJob."""
    features_claim: ObjectName = "ocrmem-features"
    """Volume at /workspace/features of a TrainJob."""
    scratch_size: Quantity = "20Gi"
    """Size of /tmp."""
    storage_class: OptionalName = None
    """Class of a volume for /tmp; null: the node's disk."""
    shm_size: Quantity = "8Gi"
    """Size of /dev/shm in tasks with GPUs."""
    cpu: Quantity = "1"
    """Cores of tasks without GPUs."""
    memory: Quantity = "4Gi"
    """Memory of tasks without GPUs."""
    gpu_cpu: Quantity = "4"
    """Cores of tasks that may have GPUs."""
    gpu_memory: Quantity = "16Gi"
    """Memory of tasks that may have GPUs."""
    timeout: PositiveInt = 4 * 3600
    """Seconds after which a task is stopped."""
    train_timeout: PositiveInt = 48 * 3600
    """Seconds after which train is stopped."""
    retries: NonNegativeInt = 2
    """Retries of tasks that use the network, and of train."""
    labels: dict[str, str] = Field(default={"app.kubernetes.io/part-of": "ocrmem"})
    """Labels of every pod."""
    user: PositiveInt = 10001
    """User and group id."""


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
