"""What is fixed when a pipeline is compiled: what Kubeflow Pipelines cannot take as a parameter of a run.

Everything else (settings of the run, data, image, GPUs, tolerations, node selector, secret) is a parameter of the
pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from ocrmem.config import PLACEHOLDER_IMAGE, Section
from ocrmem.config.settings_file import RawSettings, apply_overrides, read_settings
from ocrmem.errors import ConfigError, Problem

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
Seconds = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]


class PipelineSettings(Section):
    """Compile-time settings; `ocrmem pipeline compile --set name=value`."""

    image: str = PLACEHOLDER_IMAGE  # default of the parameter `image`
    launcher: Literal["local", "kubernetes"] = "local"  # train in the task's pod, or in a TrainJob of its own
    output_claim: Name | None = "ocrmem-output"  # volume for records, checkpoints and reports of failed tasks
    models_claim: Name | None = "ocrmem-models"  # volume for the Hugging Face cache
    data_claim: Name | None = None  # volume with conversations, mounted at /workspace/data
    dataset_claim: Name = "ocrmem-dataset"  # launcher kubernetes: the volumes that the TrainJob's pods mount
    features_claim: Name = "ocrmem-features"
    scratch_size: Quantity = "20Gi"  # of /tmp
    storage_class: Name | None = None  # given: /tmp is a volume of this class instead of the node's disk
    shm_size: Quantity = "8Gi"  # of /dev/shm in tasks with GPUs
    cpu: Quantity = "1"  # requested by tasks without a GPU
    memory: Quantity = "4Gi"
    gpu_cpu: Quantity = "4"  # requested by tasks that may have GPUs
    gpu_memory: Quantity = "16Gi"
    timeout: Seconds = 4 * 3600  # of every task but train
    train_timeout: Seconds = 48 * 3600
    retries: Annotated[int, Field(ge=0)] = 2  # of tasks that touch the network, and of train
    labels: dict[str, str] = Field(default={"app.kubernetes.io/part-of": "ocrmem"})  # of every pod
    user: Annotated[int, Field(gt=0)] = 10001  # uid and gid of every pod


def load_settings(path: Path | None, overrides: Sequence[str] = ()) -> PipelineSettings:
    """Read compile-time settings: a YAML file, if one is given, and ``name=value`` overrides.

    Raises:
        ConfigError: with every fault.
    """
    settings = read_settings(path, overrides) if path else apply_overrides(RawSettings(), overrides)
    problems = list(settings.problems)
    if not problems:
        try:
            return PipelineSettings.model_validate(settings.values)
        except ValidationError as error:
            known = ", ".join(PipelineSettings.model_fields)
            for fault in error.errors():
                place = settings.place_of([str(part) for part in fault["loc"]])
                unknown = fault["type"] == "extra_forbidden"
                message = "is no compile-time setting" if unknown else fault["msg"].lower().replace("\n", " ")
                remedy = f"The settings are {known}" if unknown else "Look at docs/pipelines.md for what it takes"
                problems.append(Problem(place, message, remedy))
    raise ConfigError(problems)
