"""Ask everything that a run will need, and list every problem at once.

    ocrmem preflight
    ocrmem preflight --launcher kubernetes

Nothing is trained, downloaded or registered. What is asked is given seconds to answer; a bucket or a directory
that the run will write to is written to (and the file deleted again), since no other question is as sure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.errors import CheckFailed, OcrMemError, Problem
from ocrmem.readiness import models, resources
from ocrmem.registry import registry_problems
from ocrmem.registry.backend import sqlite_path
from ocrmem.secrets import redact_uri
from ocrmem.storage import store_at

Answer = tuple[str, list[Problem]]  # what there is to say when all is well, and what is wrong
Question = Callable[[RunConfig], Answer]


def preflight(config: RunConfig, launcher: str = "local") -> dict[str, Any]:
    """Check keys, registry, stores, models, and the machine or the cluster that will train.

    Args:
        config: the run.
        launcher: ``local``: this machine trains, so its device and disks are looked at; ``kubernetes``: the
            cluster does, and is asked; ``none``: something else does (a pipeline's next pod), so neither.

    Returns:
        ``launcher``, ``checks`` (each with ``name`` and ``detail``), and ``summary``, a line a check.

    Raises:
        CheckFailed: with all problems of all checks.
    """
    lines, checks, problems = [], [], []
    for name, question in _questions(launcher):
        try:
            detail, found = question(config)
        except OcrMemError as error:
            detail, found = "", list(error.problems)
        problems += found
        checks.append({"name": name, "detail": detail})
        # The problems themselves are printed with the error.
        places = ", ".join(problem.place for problem in found)
        lines.append(f"problem  {name}: {places}" if found else f"ok  {name}: {detail}")
    if problems:
        for line in lines:
            note(line)
        raise CheckFailed(problems)
    return {"launcher": launcher, "checks": checks, "summary": lines}


def _questions(launcher: str) -> list[tuple[str, Question]]:
    everywhere: list[tuple[str, Question]] = [
        ("packages", resources.packages),
        ("tracking", resources.tracking),
        ("registry", _registry),
        ("dataset remote", _dataset_remote),
    ]
    if launcher == "local":
        return [*everywhere, ("models", models.here), ("device", resources.device), ("disk", resources.disk)]
    everywhere.append(("models", models.named))
    return [*everywhere, ("cluster", _cluster)] if launcher == "kubernetes" else everywhere


def _registry(config: RunConfig) -> Answer:
    section = config.registry
    said = f"{redact_uri(section.uri)} {'can be written to' if sqlite_path(section.uri) else 'answers'}"
    if section.store:
        said += f", {section.store} can be written to"
    return said, registry_problems(config)


def _dataset_remote(config: RunConfig) -> Answer:
    section = config.version
    if section.remote is None:
        return "none is configured", []
    problem = store_at(section.remote, section.endpoint_url, "version.remote").problem(write=True)
    return f"{section.remote} can be written to", [problem] if problem else []


def _cluster(config: RunConfig) -> Answer:
    from ocrmem.cluster.checks import cluster_problems

    section = config.kubernetes
    said = f"{section.nodes} x {section.gpus_per_node} GPUs can be asked for in {section.namespace}"
    return said, cluster_problems(config)
