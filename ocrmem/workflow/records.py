"""Records: what each task of a run leaves about itself, so that the run can be reported whatever became of it.

A run has one directory, ``$OCRMEM_RUNS/$OCRMEM_RUN_ID``: a volume in a cluster, ``--output`` on this machine. A task
writes ``records/NAME.json`` there when it starts and again when it ends, so one that was killed stays "running". The
names come from the environment, not from parameters: a parameter that changes with every run would defeat caching.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ocrmem.errors import ConfigError
from ocrmem.facts import RUN_ID
from ocrmem.files import write_json
from ocrmem.json_files import TaskRecord, read_json

RUNS = "OCRMEM_RUNS"
RECORDS, FAILED_REPORTS = "records", "failed"  # folders in a run's directory
CLUSTER_RUNS = "/workspace/output/runs"
RUNNING, DONE, SKIPPED, FAILED, STOPPED = "running", "done", "skipped", "failed", "stopped"


@dataclass
class Record:
    """A task's account of itself.

    Attributes:
        step: the verb.
        status: running, done, skipped, failed, or stopped from outside.
        started: seconds since the epoch.
        seconds: how long it took; None while it runs.
        summary: lines for a person, those of the command line.
        headline: what it comes down to, in one line.
        metrics: figures by name.
        warnings: what makes the outcome mean less than it seems.
        problems: of a failed task, as `Problem.as_dict`.
        exit_code: what the command line would have left with.
        pid: of its process, where that runs.
    """

    step: str
    status: str
    started: float
    seconds: float | None = None
    summary: list[str] = field(default_factory=list)
    headline: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    problems: Sequence[Mapping[str, Any]] = ()
    exit_code: int | None = None
    pid: int | None = None

    @property
    def said(self) -> str:
        """What one line about the task says: its first problem, or what it comes down to."""
        if not self.problems:
            return self.headline
        more = f", and {len(self.problems) - 1} more" if len(self.problems) > 1 else ""
        return self.problems[0]["message"] + more


def run_directory() -> Path | None:
    """Return the directory of the run that this process belongs to; None where a component runs by itself."""
    run = os.environ.get(RUN_ID)
    return Path(os.environ.get(RUNS) or CLUSTER_RUNS) / run if run else None


def write_record(record: Record) -> None:
    """Write the record into the run's directory, if there is one.

    Raises:
        ConfigError: the directory cannot be written.
    """
    directory = run_directory()
    if directory is None:
        return
    path = directory / RECORDS / f"{record.step}.json"
    try:
        write_json(path, asdict(record))
    except OSError as error:
        raise ConfigError.of(
            str(path),
            f"cannot be written ({error.strerror})",
            "Mount a volume that user 10001 can write at /workspace/output, or compile with output_claim=null",
        ) from None


def read_records(directory: Path) -> dict[str, Record]:
    """Read the records of a run by step, in the order in which the steps began."""
    paths = (directory / RECORDS).glob("[!.]*.json")
    found = [Record(**read_json(path, TaskRecord, made_by="pipeline run")) for path in paths]
    return {record.step: record for record in sorted(found, key=lambda record: record.started)}
