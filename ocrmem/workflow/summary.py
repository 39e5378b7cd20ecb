"""Summarise a run; the pipeline's exit handler does it, however the run ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from typing_extensions import TypedDict

from ocrmem.errors import Problem
from ocrmem.files import write_json
from ocrmem.verdicts import warning_lines
from ocrmem.workflow.markdown import bullets, table, write_page
from ocrmem.workflow.records import FAILED, RUNNING, STOPPED, Record, read_records, run_directory
from ocrmem.workflow.task import Artifact

SUMMARY = "summary.json"
# States of a task besides those of a record.
KILLED, CACHED, NOT_RUN, NO_RECORD = "killed", "cached", "not run", "no record"
SUCCEEDED = "SUCCEEDED"
_WELL = {SUCCEEDED, "COMPLETE", "COMPLETED"}  # the backends of Kubeflow Pipelines name it differently
_SHOWN = ("loss.last", "memory.recall", "shuffled.recall", "no_memory.recall", "memory.loss", "compression_ratio",
          "passed", "version")  # fmt: skip


class RunSummary(TypedDict):
    """What summary.json holds.

    Attributes:
        run: name of the run's directory, if it has one.
        state: SUCCEEDED, or as Kubeflow Pipelines says.
        failed_task: the step.
        error: Kubeflow Pipelines' message.
        written: time in UTC.
        steps: a record each, in the order of the pipeline.
        metrics: figures by ``step.name``.
    """

    pipeline: str
    run: str | None
    state: str
    failed_task: str | None
    error: str | None
    written: str
    steps: list[dict[str, Any]]
    metrics: dict[str, float]


def summarise(pipeline: str, steps: Sequence[str], state: str, error: str, report: Artifact) -> RunSummary:
    """Write the run's summary: a Markdown artifact, and summary.json in the run's directory.

    Args:
        pipeline: its name.
        steps: the verbs in their order.
        state: what Kubeflow Pipelines says of the tasks: SUCCEEDED, FAILED, CANCELLED ...
        error: its message, if any.
    """
    directory = run_directory()
    records = read_records(directory) if directory else {}
    rows = [_row(step, records.get(step)) for step in steps]
    failed = next((row["step"] for row in rows if row["status"] in (FAILED, STOPPED, KILLED)), None)
    if failed:
        state = "FAILED"
    elif state.upper() in _WELL:
        state = SUCCEEDED
    _explain_missing(rows, failed, state)
    summary: RunSummary = {
        "pipeline": pipeline,
        "run": directory.name if directory else None,
        "state": state,
        "failed_task": failed,
        "error": error or None,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "steps": rows,
        "metrics": {f"{step}.{name}": value for step, record in records.items()
                    for name, value in record.metrics.items()},
    }  # fmt: skip
    if directory:
        write_json(directory / SUMMARY, summary)
    _write_report(report, summary, records)
    report.metadata.update(state=state, failed_task=failed or "")
    return summary


def shown_figures(summary: RunSummary) -> list[tuple[str, str]]:
    """Return the figures by which a run is judged, as text by ``step.name``."""
    return [(name, f"{value:.6g}") for name, value in summary["metrics"].items() if name.partition(".")[2] in _SHOWN]


def _row(step: str, record: Record | None) -> dict[str, Any]:
    if record is None:
        return {"step": step, "status": NO_RECORD, "seconds": None}
    # Every task but this one has ended.
    return {**asdict(record), "status": KILLED if record.status == RUNNING else record.status}


def _explain_missing(rows: list[dict[str, Any]], failed: str | None, state: str) -> None:
    """Distinguish cached tasks from those not reached; neither leaves a record, and the tasks run one by one."""
    recorded = [index for index, row in enumerate(rows) if row["status"] != NO_RECORD]
    last = len(rows) if state == SUCCEEDED else max(recorded, default=-1)
    for index, row in enumerate(rows):
        if row["status"] == NO_RECORD and (index < last or failed):
            row["status"] = CACHED if index < last else NOT_RUN


def _write_report(report: Artifact, summary: RunSummary, records: dict[str, Record]) -> None:
    rows = [(row["step"], row["status"], "" if row["seconds"] is None else f"{row['seconds']:.1f}",
             row.get("headline", "")) for row in summary["steps"]]  # fmt: skip
    problems = [str(Problem(**problem)) for row in summary["steps"] for problem in row.get("problems", [])]
    warnings = dict.fromkeys(warning for row in summary["steps"] for warning in row.get("warnings", []))
    figures = shown_figures(summary)
    head = [f"state: {summary['state']}"]
    if summary["failed_task"]:
        head.append(f"failed task: {summary['failed_task']}")
    if summary["error"]:
        head.append(f"Kubeflow Pipelines says: {summary['error']}")
    if summary["run"] is None:
        head.append("no run directory was mounted, so nothing is known of the single tasks")
    write_page(
        report,
        f"Run of {summary['pipeline']}",
        bullets(head),
        bullets(problems),
        bullets(warning_lines(warnings)),
        table(("task", "status", "seconds", ""), rows),
        table(("figure", "value"), figures) if figures else [],
    )
