"""`ocrmem train --launcher kubernetes --dry-run`: the TrainJob, printed; needs neither a cluster nor the SDK."""

from __future__ import annotations

from typing import TypedDict

from ocrmem.cluster.manifest import Object, as_yaml, run_name_for, train_job
from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.errors import ConfigError


class DryRunResult(TypedDict):
    """The TrainJob, and it as YAML."""

    manifest: Object
    summary: list[str]


def dry_run(config: RunConfig, *, run_name: str | None = None) -> DryRunResult:
    """Return the TrainJob of a run, compared with Kubeflow Trainer's API where the SDK is installed.

    Args:
        config, run_name: as `train_on_cluster` takes them.

    Raises:
        ConfigError: settings do not make a job.
        ClusterError: Trainer's API does not know a field of it.
    """
    manifest = train_job(config, run_name or run_name_for(config))
    try:
        from ocrmem.cluster.sdk_models import check_manifest
    except ConfigError as error:
        note(f"The TrainJob is not compared with Kubeflow Trainer's API: {error}")
    else:
        check_manifest(manifest)
    return {"manifest": manifest, "summary": as_yaml(manifest).splitlines()}
