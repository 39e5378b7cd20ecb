"""Check everything that a run will need, and list all problems at once.

    ocrmem preflight
    ocrmem preflight --launcher kubernetes

Nothing is trained, downloaded or registered. Services get seconds to answer. A bucket or a directory that the run will
write to is written to (and the file deleted again), since nothing else proves that it can be.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypedDict

from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.errors import CheckFailed, OcrMemError, Problem
from ocrmem.readiness import models, resources
from ocrmem.readiness.outcome import CheckOutcome
from ocrmem.registry.backend import backend_of, sqlite_path
from ocrmem.secrets import redact_uri
from ocrmem.storage import store_at

Check = Callable[[RunConfig], CheckOutcome]


class CheckResult(TypedDict):
    """One check that was passed, and what it found."""

    name: str
    detail: str


class PreflightResult(TypedDict):
    """The checks that were passed; ``summary`` is a line for each."""

    launcher: str
    checks: list[CheckResult]
    summary: list[str]


def preflight(config: RunConfig, launcher: str = "local") -> PreflightResult:
    """Check keys, registry, stores, models, and the machine or the cluster that will train.

    Args:
        config: the run.
        launcher: ``local``: this machine trains, so its device and disks are checked; ``kubernetes``: the cluster
            trains, and is checked; ``none``: something else trains (a pipeline's next pod), so neither.

    Raises:
        CheckFailed: with all problems of all checks.
    """
    lines: list[str] = []
    checks: list[CheckResult] = []
    problems: list[Problem] = []
    for name, check in _checks(launcher).items():
        try:
            detail, found = check(config)
        except OcrMemError as error:
            detail, found = "", list(error.problems)
        problems += found
        checks.append({"name": name, "detail": detail})
        # The problems themselves are printed with the error.
        places = ", ".join(problem.place for problem in found)
        lines.append(f"problem  {name}: {places}" if found else f"ok  {name}: {detail}")
    if problems:
        note("\n".join(lines))
        raise CheckFailed(problems)
    return {"launcher": launcher, "checks": checks, "summary": lines}


def _checks(launcher: str) -> dict[str, Check]:
    checks: dict[str, Check] = {
        "packages": resources.packages,
        "tracking": resources.tracking,
        "registry": _registry,
        "dataset remote": _dataset_remote,
        "models": partial(models.available, directories=launcher == "local"),
    }
    if launcher == "local":
        checks |= {"device": resources.device, "disk": resources.disk}
    elif launcher == "kubernetes":
        checks["cluster"] = _cluster
    return checks


def _registry(config: RunConfig) -> CheckOutcome:
    section = config.registry
    said = f"{redact_uri(section.uri)} {'can be written to' if sqlite_path(section.uri) else 'answers'}"
    if section.store:
        said += f", {section.store} can be written to"
    return said, backend_of(config).problems(config)


def _dataset_remote(config: RunConfig) -> CheckOutcome:
    section = config.version
    if section.remote is None:
        return "none is configured", []
    problem = store_at(section.remote, section.endpoint_url, "version.remote").problem(write=True)
    return f"{section.remote} can be written to", [problem] if problem else []


def _cluster(config: RunConfig) -> CheckOutcome:
    from ocrmem.cluster.checks import cluster_problems

    section = config.kubernetes
    said = f"{section.nodes} x {section.gpus_per_node} GPUs can be requested in {section.namespace}"
    return said, cluster_problems(config)
