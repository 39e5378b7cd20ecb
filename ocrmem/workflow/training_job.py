"""Run the task `train` as a TrainJob: artifacts to the job's volumes, the job, and its outputs back into artifacts."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from ocrmem.config import PathsSection, RunConfig, VolumeSection
from ocrmem.errors import ConfigError
from ocrmem.facts import RUN_ID
from ocrmem.files import replacing_directory, sha256_tree
from ocrmem.json_files import TrainReport, read_json
from ocrmem.model_places import left_by_base
from ocrmem.workflow.records import run_directory


def train_in_job(config: RunConfig, reports: Path) -> dict[str, Any]:
    """Train in a TrainJob of this run; its volumes must be mounted here where they are in its pods.

    A second try of the task finds the job of the first and follows it: the job is named after the run.

    Args:
        config: the task's, with dataset, features and models in artifacts.
        reports: directory that gets train.json and plots/.

    Returns:
        What train.json holds, and ``summary``. The adapter is in ``paths.adapter``.

    Raises:
        ConfigError: a volume is not mounted, or settings do not make a job.
        ClusterError, TrainingError, PreemptedError: as `train_on_cluster`.
    """
    from ocrmem.cluster.trainjob import RECORD, train_on_cluster

    volumes = config.kubernetes.volumes
    places = {"dataset": _staged(config.paths.dataset, volumes.dataset)}
    places["features"] = _staged(config.paths.features, volumes.features)
    names = config.model
    made = left_by_base(names.base_model_name, config.paths.models, "base", names.base_revision)
    places["models"] = _staged(config.paths.models, volumes.models) if made else volumes.models.path
    # This task's own directories are no business of the job: with them, a second try would be another job.
    job = config.model_copy(update={"paths": PathsSection(**places)})
    # Beside the tasks' records: an output of a task that fails is not kept.
    record = (run_directory() or reports) / RECORD
    done = train_on_cluster(job, run_name=_job_name(), resume=True, record=record)
    shutil.copytree(done["adapter"]["in_pods"], config.paths.adapter, dirs_exist_ok=True)
    report = Path(done["report"]["in_pods"])
    reports.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(report, reports / report.name)
    shutil.copytree(report.parent / "plots", reports / "plots", dirs_exist_ok=True)
    return {**read_json(report, TrainReport, made_by="train"), "summary": done["summary"]}


def _staged(source: str, volume: VolumeSection) -> str:
    """Copy an artifact to a volume, under the hash of its content: runs share what is equal and never overwrite."""
    if not Path(volume.path).is_dir():
        raise ConfigError.of(
            volume.path,
            f"is not mounted here; the TrainJob's pods find {volume.claim} there",
            "Compile the pipeline with launcher=kubernetes, which mounts it",
        )
    target = Path(volume.path) / sha256_tree(Path(source))[:16]
    if not target.is_dir():
        with replacing_directory(target) as directory:
            shutil.copytree(source, directory, dirs_exist_ok=True)
    return str(target)


def _job_name() -> str | None:
    """Return a name for the run's job; None outside of a run, where the settings give one."""
    run = os.environ.get(RUN_ID)
    return f"train-{re.sub('[^a-z0-9-]', '-', run.lower())[:40].strip('-')}" if run else None
