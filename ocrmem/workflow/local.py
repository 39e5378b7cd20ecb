"""`ocrmem pipeline run NAME --local`: the compiled pipeline, task by task, in processes on this machine.

Kubeflow Pipelines' own local runner does the work. It prints every line of every task and reports a failure only by
the task's name, so its output goes to a file, and what a person sees comes from the tasks' records.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from ocrmem.console import console, note
from ocrmem.environment import environment
from ocrmem.errors import CheckFailed, ConfigError, Exit, OcrMemError, PreemptedError, Problem
from ocrmem.facts import RUN_ID
from ocrmem.files import locked, sha256_code
from ocrmem.json_files import read_json
from ocrmem.workflow.compiled import Package
from ocrmem.workflow.records import FAILED_REPORTS, RECORDS, RUNNING, RUNS, STOPPED, read_records
from ocrmem.workflow.stopping import LOG, RUNNER, STOP, StopRequest, handing_on_signals
from ocrmem.workflow.summary import CACHED, KILLED, SUCCEEDED, SUMMARY, RunSummary, shown_figures

CACHE = ".cache"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LOOK = 0.2  # seconds between two looks at the records


class RunResult(RunSummary):
    """What summary.json holds, and where everything is."""

    directory: str
    log: str
    summary: list[str]


def run_locally(
    package: Package, arguments: dict[str, Any], output: Path, *, cache: bool = False, resume: str | None = None
) -> RunResult:
    """Run a compiled pipeline to its end.

    Args:
        arguments: values of its parameters.
        output: the run gets a new directory in it, with artifacts, records, the log and summary.json.
        cache: take the outputs of earlier runs under ``output`` where a task and its inputs are the same.
        resume: name of a run under ``output`` that was stopped: what its tasks have made is taken again where task and
            inputs are the same, and training resumes from its newest checkpoint.

    Raises:
        ConfigError: the task that failed says that settings are wrong; as BusyError where the run to resume still runs.
        CheckFailed: a task failed; with its problems.
        PreemptedError: stopped by SIGTERM.
        KeyboardInterrupt: stopped by Ctrl-C.
    """
    run = resume or f"{package.name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    directory = (output / run).absolute()
    with _opened(directory, resume) as log:
        note(f"run {run}; everything that is printed goes to {log}")
        names = {RUNS: str(directory.parent), RUN_ID: run, RUNNER: str(os.getpid())}
        private, shared = directory / CACHE, output.absolute() / CACHE
        # kfp identifies a task by its component alone, which holds none of ocrmem's code.
        root = shared if cache or (resume and not private.is_dir()) else private
        with environment(names), _Watch(directory, package.steps) as watch, handing_on_signals(directory) as request:
            failure = _run(package, arguments, directory, log, root / sha256_code()[:12])
        return _result(package, directory, failure, watch, request)


@contextlib.contextmanager
def _opened(directory: Path, resume: str | None) -> Iterator[Path]:
    """Give the log of a run that no other process runs: of a new one, or of one that continues."""
    if resume is not None:
        if Path(resume).name != resume or not (directory / LOG).is_file():
            known = sorted(path.parent.name for path in directory.parent.glob(f"*/{LOG}"))
            remedy = f"Name one of {', '.join(known[-5:])}" if known else "Name another folder with --output"
            raise ConfigError.of("--resume", f"{resume} is not a run in {directory.parent}", remedy)
    else:
        try:
            directory.mkdir(parents=True)
        except OSError as error:
            message = f"cannot be written ({error.strerror})"
            raise ConfigError.of(str(directory.parent), message, "Name another folder with --output") from None
    with locked(directory, "pipeline run"):
        # What an earlier try has said of itself is not said of this one.
        for name in (SUMMARY, STOP):
            (directory / name).unlink(missing_ok=True)
        for name in (RECORDS, FAILED_REPORTS):
            shutil.rmtree(directory / name, ignore_errors=True)
        yield directory / LOG


def _run(package: Package, arguments: dict[str, Any], directory: Path, log: Path, cache: Path) -> str | None:
    """Run it with Kubeflow Pipelines' output in ``log``, and return what that says of a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kfp import components, local
    with log.open("a", encoding="utf-8", buffering=1) as file, contextlib.redirect_stdout(file), _warnings_to(file):
        local.init(
            runner=local.SubprocessRunner(use_venv=False),
            pipeline_root=str(directory),
            workspace_root=str(directory / "workspace"),
            enable_caching=True,
            cache_root=str(cache),
        )
        # Each task is tried once: nothing is away for a moment here, and a no stays a no.
        pipeline = components.load_component_from_text(package.without("retryPolicy").text())
        try:
            pipeline(**arguments)
        except RuntimeError as error:  # all that kfp raises for a failed task
            return _COLOUR.sub("", str(error)).rstrip(".")
    return None


def _result(package: Package, directory: Path, failure: str | None, watch: _Watch, request: StopRequest) -> RunResult:
    """Return what came of the run, or raise it."""
    path, log = directory / SUMMARY, directory / LOG
    resume = f"Run the same command again with --resume {directory.name}"
    summary: RunSummary | None = None
    if path.is_file():
        summary = read_json(path, RunSummary, made_by="pipeline run")
        watch.report_rest(summary["steps"])
        if summary["state"] == SUCCEEDED and not failure:
            return {**summary, "directory": str(directory), "log": str(log), "summary": _lines(summary, directory)}
    if request.signal == signal.SIGINT:
        note(f"{package.name} was interrupted. {resume}.")
        raise KeyboardInterrupt
    row = next((row for row in summary["steps"] if row["step"] == summary["failed_task"]), None) if summary else None
    if row is None:
        if request.signal is not None:
            raise PreemptedError.of(package.name, "was stopped by SIGTERM", resume)
        message = f"ended before its exit handler ({failure})" if summary is None else failure or summary["state"]
        raise CheckFailed.of(package.name, message, f"Look at the end of {log}")
    raise _failed(row, log, resume)


def _failed(row: dict[str, Any], log: Path, resume: str) -> OcrMemError:
    """Return the error of the task that ended the run."""
    problems = [Problem(**problem) for problem in row.get("problems", [])]
    if not problems:
        message = f"process {row['pid']} was killed and could not say why"
        remedy = f"Look at the end of {log}, and whether memory ran out (`dmesg`). {resume}"
        problems = [Problem(row["step"], message, remedy)]
    kind: type[OcrMemError] = ConfigError if row.get("exit_code") == Exit.USAGE else CheckFailed
    return (PreemptedError if row["status"] == STOPPED else kind)(problems)


def _lines(summary: RunSummary, directory: Path) -> list[str]:
    """Return what the lines of the single tasks have not said."""
    rows = summary["steps"]
    cached = sum(row["status"] == CACHED for row in rows)
    seconds = sum(row["seconds"] or 0 for row in rows)
    state = summary["state"].lower()
    return [
        f"{summary['pipeline']}: {state}; {len(rows)} tasks, {cached} of them cached, {seconds:.1f} s",
        *(f"  {name}: {value}" for name, value in shown_figures(summary)),
        f"Artifacts, log and summary: {directory}",
    ]


class _Watch:
    """Show the running task on a terminal, and print a line when one ends, by looking at the records."""

    def __init__(self, directory: Path, steps: Sequence[str]) -> None:
        self._directory = directory
        self._steps = steps
        self._reported: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._report()

    def report_rest(self, rows: Sequence[dict[str, Any]]) -> None:
        """Print a line for each task that has left no record of its end but was reached.

        Args:
            rows: of the run's summary.
        """
        for row in rows:
            if row["status"] == CACHED:
                self._print(row["step"], CACHED)
            elif row["status"] == KILLED:
                self._print(row["step"], KILLED, said="its process ended without a word")

    def _look(self) -> None:
        with console.status("starting") as status:
            while not self._ended.wait(_LOOK):
                running = self._report()
                status.update(f"{running[-1]} ..." if running else "...")

    def _report(self) -> list[str]:
        records = read_records(self._directory)
        begun = [index for index, step in enumerate(self._steps) if step in records]
        for step in self._steps[: max(begun, default=0)]:
            if step not in records:  # tasks run one by one, and one that was passed by leaves no record
                self._print(step, CACHED)
        for step, record in records.items():
            if record.status != RUNNING:
                self._print(step, record.status, record.seconds, record.said)
        return [step for step, record in records.items() if record.status == RUNNING]

    def _print(self, step: str, status: str, seconds: float | None = None, said: str = "") -> None:
        if step not in self._reported:
            self._reported.add(step)
            took = "" if seconds is None else f"{seconds:.1f} s"
            note(f"  {step:<10} {status:<8} {took:>9}  {said}".rstrip())


@contextlib.contextmanager
def _warnings_to(file: Any) -> Iterator[None]:
    """Send kfp's warnings of what has no effect here (GPUs, the image) to the log."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        print(f"{category.__name__}: {message}", file=file)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show  # type: ignore[assignment]
        yield
