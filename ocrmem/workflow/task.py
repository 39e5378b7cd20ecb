"""Run a step as the task of a pipeline: settings from a parameter, directories from artifacts, failure as the CLI's.

The library function runs in the task's own process. What it does not take from an artifact or leave in one lies in a
scratch directory that goes with the task: a task writes to its own outputs and nowhere else.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from ocrmem.config import PathsSection, RunConfig
from ocrmem.console import note, print_problems, quiet_libraries
from ocrmem.errors import ConfigError, OcrMemError, PreemptedError, Problem
from ocrmem.files import disk_errors, write_json, write_text
from ocrmem.steps import STEPS
from ocrmem.workflow.records import (
    DONE,
    FAILED,
    FAILED_REPORTS,
    RUNNING,
    SKIPPED,
    STOPPED,
    Record,
    run_directory,
    write_record,
)
from ocrmem.workflow.staging import bring_data
from ocrmem.workflow.stopping import TERMINATED, again, stoppable

PARAMS = "params.yaml"
# What outlives the pod where the run has a directory: checkpoints to resume from, and the offline tracking run.
_KEPT = ("checkpoints", "tracking")


class Artifact(Protocol):
    """The part of Kubeflow Pipelines' artifacts that is used here, without importing kfp."""

    path: str
    metadata: dict[str, Any]


@dataclass
class Task:
    """A task that is running; `running` makes it.

    Attributes:
        record: its account of itself.
        scratch: a directory that is removed with the task.
        overrides: ``key.path=value`` over the settings.
    """

    record: Record
    scratch: Path
    overrides: list[str]

    @property
    def params(self) -> Path:
        """The settings as a file."""
        return self.scratch / PARAMS

    def config(self) -> RunConfig:
        """Read the run's configuration, its directories being those of this task.

        Raises:
            ConfigError: every fault of the settings.
        """
        return RunConfig.load(self.params, self.overrides)

    def run(self, **arguments: Any) -> dict[str, Any]:
        """Call the step's library function, which is imported once the settings are known to be good.

        Raises:
            OcrMemError: every fault of the settings, or as the function.
        """
        result = dict(STEPS[self.record.step].call_with(self.config(), **arguments))
        self.record.warnings = result.get("warnings", [])
        return result

    def report(self, name: str) -> Path:
        """Return a file of ``paths.reports``."""
        return self.scratch / "reports" / name

    def done(
        self, summary: Sequence[str], metrics: dict[str, float] | None = None, *, headline: str | None = None
    ) -> None:
        """Record the outcome; the headline is the summary's first line unless another says more."""
        self.record.summary = [line.replace(f"{self.scratch}/", "") for line in summary]
        self.record.headline = self.record.summary[0] if headline is None else headline
        self.record.metrics = metrics or {}

    def skip(self, reason: str) -> None:
        """Record that there was nothing to do, and why."""
        self.record.status = SKIPPED
        self.record.summary = [reason]
        self.record.headline = reason


@contextmanager
def running(
    step: str,
    settings: str,
    overrides: Sequence[str] = (),
    *,
    data: str = "",
    keep: Sequence[str] = (),
    **artifacts: Artifact,
) -> Iterator[Task]:
    """Run a verb as a task.

    Args:
        step: the verb, which names the record.
        settings: text of params.yaml, or the part of it that `handed_settings` has for the step.
        overrides: ``key.path=value``, as for ``--set``.
        data: where the conversations are: a path, or ``s3://bucket/prefix``; empty: ``data.path`` of the settings.
        keep: fields of ``paths`` whose directories are kept in the run's directory if the task fails: Kubeflow
            Pipelines stores no artifact of a failed task.
        artifacts: by field of ``paths``: their directories stand there.

    Raises:
        SystemExit: the verb failed. Its problems have been printed as the command line prints them, and the code is
            the command line's.
    """
    quiet_libraries()
    began = time.monotonic()
    with stoppable() as stop, tempfile.TemporaryDirectory(prefix="ocrmem-") as directory:
        record = Record(step, RUNNING, started=time.time(), pid=os.getpid())
        _write(record)
        scratch = Path(directory)
        task = Task(record, scratch, list(overrides))
        try:
            stop.check()
            write_text(task.params, settings)
            places = _places(scratch, artifacts)
            if data:
                places["data.path"] = str(bring_data(data, scratch / "data"))
            task.overrides += [f"{name}={json.dumps(place)}" for name, place in places.items()]
            with disk_errors(f"ocrmem {step}"):
                yield task
            if record.status == RUNNING:
                record.status = DONE
        except PreemptedError as error:  # a checkpoint is written, and the command line would name `ocrmem train`
            reason = f"; {stop.reason}" if stop.reason else ""
            problems = [Problem(one.place, f"{one.message}{reason}", again()) for one in error.problems]
            _end(record, STOPPED, error.exit_code, problems)
        except OcrMemError as error:
            # Name places as the command line would have.
            problems = [problem.replaced(f"{scratch}/", "") for problem in error.problems]
            _keep({name: places[f"paths.{name}"] for name in keep}, step)
            _end(record, FAILED, error.exit_code, problems)
        except KeyboardInterrupt as stopped:
            _end(record, STOPPED, TERMINATED, [Problem(step, str(stopped) or "was interrupted", again())])
        except BaseException as error:
            remedy = "Report it with the task's log"
            problem = Problem(step, f"stopped by {type(error).__name__}: {error}", remedy)
            record.status, record.exit_code, record.problems = FAILED, 1, [problem.as_dict()]
            raise
        finally:
            record.seconds = round(time.monotonic() - began, 3)
            _write(record)
    for line in record.summary:
        print(line)


def _end(record: Record, status: str, exit_code: int, problems: Sequence[Problem]) -> NoReturn:
    """Record and print why the task ends early, and leave with the code."""
    record.status, record.exit_code = status, exit_code
    record.problems = [problem.as_dict() for problem in problems]
    sys.stdout.flush()
    print_problems(problems)
    raise SystemExit(exit_code) from None


def _write(record: Record) -> None:
    try:
        write_record(record)
    except ConfigError as error:
        print_problems(error.problems)
        raise SystemExit(error.exit_code) from None


def _places(scratch: Path, artifacts: dict[str, Artifact]) -> dict[str, str]:
    """Return every field of ``paths``: an artifact's directory, or one of the run or the scratch directory."""
    kept = run_directory() or scratch
    places = {f"paths.{name}": str((kept if name in _KEPT else scratch) / name) for name in PathsSection.model_fields}
    return places | {f"paths.{name}": artifact.path for name, artifact in artifacts.items()}


def _keep(directories: dict[str, str], step: str) -> None:
    run = run_directory()
    if run is None:
        return
    for name, directory in directories.items():
        if Path(directory).is_dir():
            kept = run / FAILED_REPORTS / step / name
            shutil.copytree(directory, kept, dirs_exist_ok=True)
            note(f"reports of the failed task: {kept}")


def flat(figures: Mapping[str, Any], *names: str) -> dict[str, float]:
    """Return chosen numbers of nested figures by dotted name, without those that are not there."""
    found = {}
    for name in names:
        value: Any = figures
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)
    return found


def log_metrics(artifact: Artifact, metrics: dict[str, float]) -> None:
    """Write figures for Kubeflow Pipelines' page of the run, and into a file: the local runner misses one otherwise."""
    artifact.metadata.update(metrics)
    write_json(Path(artifact.path), metrics)


def copy_file(source: Path, artifact: Artifact) -> None:
    """Make a file the artifact."""
    Path(artifact.path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, artifact.path)
