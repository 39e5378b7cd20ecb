"""`ocrmem pipeline run NAME --local`: the compiled pipeline, task by task, in processes on this machine.

Kubeflow Pipelines' own local runner does the work. It prints every line of every task and reports a failure only by
the task's name, so its output goes to a file, and what a person sees comes from the tasks' records.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ocrmem
from ocrmem.console import console, note
from ocrmem.environment import environment
from ocrmem.errors import CheckFailed, ConfigError, OcrMemError, Problem
from ocrmem.facts import RUN_ID
from ocrmem.files import sha256_file, sha256_json
from ocrmem.json_files import read_json
from ocrmem.workflow.compiled import Package
from ocrmem.workflow.records import RUNNING, RUNS, Record, read_records
from ocrmem.workflow.summary import SUCCEEDED, SUMMARY, RunSummary

LOG = "log.txt"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LOOK = 0.2  # seconds between two looks at the records


class RunResult(RunSummary):
    """What summary.json holds, and where everything is."""

    directory: str
    log: str
    summary: list[str]


def run_locally(package: Package, arguments: dict[str, Any], output: Path, *, cache: bool = False) -> RunResult:
    """Run a compiled pipeline to its end.

    Args:
        arguments: values of its parameters.
        output: the run gets a new directory in it, with artifacts, records, the log and summary.json.
        cache: take the outputs of earlier runs under ``output`` where a task and its inputs are the same.

    Raises:
        ConfigError: the task that failed says that settings are wrong.
        CheckFailed: a task failed; with its problems.
    """
    run = f"{package.name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    directory = (output / run).absolute()
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        message = f"cannot be written ({error.strerror})"
        raise ConfigError.of(str(output), message, "Name another folder with --output") from None
    log = directory / LOG
    note(f"run {run}; everything that is printed goes to {log}")
    with environment({RUNS: str(directory.parent), RUN_ID: run}), _Watch(directory):
        failure = _run(package, arguments, directory, log, output.absolute() / ".cache" / _code() if cache else None)
    path = directory / SUMMARY
    if not path.is_file():
        raise CheckFailed.of(package.name, f"ended before its exit handler ({failure})", f"Look at the end of {log}")
    summary = read_json(path, RunSummary, made_by="pipeline run")
    if summary["state"] != SUCCEEDED or failure:
        raise _failed(package, summary, failure, log)
    return {**summary, "directory": str(directory), "log": str(log), "summary": _lines(summary, directory)}


def _run(package: Package, arguments: dict[str, Any], directory: Path, log: Path, cache: Path | None) -> str | None:
    """Run it with Kubeflow Pipelines' output in ``log``, and return what that says of a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kfp import components, local
    with log.open("w", encoding="utf-8", buffering=1) as file, contextlib.redirect_stdout(file), _warnings_to(file):
        local.init(
            runner=local.SubprocessRunner(use_venv=False),
            pipeline_root=str(directory),
            workspace_root=str(directory / "workspace"),
            enable_caching=cache is not None,
            cache_root=str(cache) if cache else None,
        )
        # Each task is tried once: nothing is away for a moment here, and a no stays a no.
        pipeline = components.load_component_from_text(package.without("retryPolicy").text())
        try:
            pipeline(**arguments)
        except RuntimeError as error:  # all that kfp raises for a failed task
            return _COLOUR.sub("", str(error)).rstrip(".")
    return None


def _failed(package: Package, summary: RunSummary, failure: str | None, log: Path) -> OcrMemError:
    step = next((row for row in summary["steps"] if row["step"] == summary["failed_task"]), None)
    if step is None:
        return CheckFailed.of(package.name, failure or summary["state"], f"Look at {log}")
    problems = [Problem(**problem) for problem in step.get("problems", [])]
    if not problems:
        message = "was stopped" if step["status"] == "killed" else f"left with code {step.get('exit_code')}"
        problems = [Problem(step["step"], message, f"Look at {log}")]
    return (ConfigError if step.get("exit_code") == 2 else CheckFailed)(problems)


def _lines(summary: RunSummary, directory: Path) -> list[str]:
    lines = []
    for row in summary["steps"]:
        said = row["summary"][-1:] if "summary" in row else [row["status"]]
        lines += [f"  {row['step']:<10} {line}" for line in said]
    state = summary["state"].lower()
    return [*lines, f"{summary['pipeline']}: {state}; artifacts, log and summary in {directory}"]


def _code() -> str:
    """Hash ocrmem's modules: kfp identifies a task by its component alone, which holds none of them."""
    root = Path(ocrmem.__file__).parent
    return sha256_json([[path.name, sha256_file(path)] for path in sorted(root.rglob("*.py"))])[:12]


class _Watch:
    """Show the running task on a terminal, and print a line when one ends, by looking at the records."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._reported: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._report()

    def _look(self) -> None:
        with console.status("starting") as status:
            while not self._ended.wait(_LOOK):
                running = self._report()
                status.update(f"{running[-1]} ..." if running else "...")

    def _report(self) -> list[str]:
        records = read_records(self._directory)
        for step, record in records.items():
            if record.status != RUNNING and step not in self._reported:
                self._reported.add(step)
                note(_line(record))
        return [step for step, record in records.items() if record.status == RUNNING]


def _line(record: Record) -> str:
    said = str(Problem(**record.problems[0])) if record.problems else "".join(record.summary[:1])
    return f"  {record.step:<10} {record.status:<8} {record.seconds or 0:7.1f} s  {said}".rstrip()


@contextlib.contextmanager
def _warnings_to(file: Any) -> Iterator[None]:
    """Send kfp's warnings of what has no effect here (GPUs, the image) to the log."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        print(f"{category.__name__}: {message}", file=file)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show  # type: ignore[assignment]
        yield
