"""`ocrmem train --launcher kubernetes`: create or find the run's TrainJob, follow it, report its end.

    ocrmem train --launcher kubernetes --run-name first

The run name is the job's name, so a second start with the same name and settings finds the first one's job and
follows it; with other settings it is refused. Nothing that a run needs is kept on this machine; what the cluster said
about a job that ended badly is, since it is lost with the job.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypedDict

from ocrmem.cluster.api import Api
from ocrmem.cluster.checks import image_problems
from ocrmem.cluster.diagnosis import Kind, Trouble, condition
from ocrmem.cluster.evidence import concerns, failure_record
from ocrmem.cluster.following import Follower, Outcome
from ocrmem.cluster.manifest import (
    differences,
    pod_settings,
    run_folder,
    run_name_for,
    settings_of,
    train_job,
)
from ocrmem.cluster.pauses import Pauses
from ocrmem.cluster.permissions import EVENTS, PODS, TRAINJOBS
from ocrmem.cluster.sdk import trainer
from ocrmem.cluster.sdk_models import check_manifest
from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.errors import ClusterError, ConfigError, PreemptedError, TrainingError
from ocrmem.files import write_json

Object = dict[str, Any]
RECORD = "trainjob.json"


class OnVolume(TypedDict):
    """A file or directory on a volume: its claim, the path in it, and the path in the pods."""

    claim: str | None
    path: str
    in_pods: str


class TrainOnClusterResult(TypedDict, total=False):
    """What a job that has completed leaves.

    Attributes:
        attached: whether the job was there already.
        restarts: by the launcher, after preemptions.
        seconds: from the job's creation to its end, by the cluster's clock.
        pods: name, node, phase and exit code of each.
    """

    summary: list[str]
    run: str
    namespace: str
    state: str
    attached: bool
    restarts: int
    seconds: float | None
    pods: list[Object]
    adapter: OnVolume
    report: OnVolume


def train_on_cluster(
    config: RunConfig,
    *,
    run_name: str | None = None,
    resume: bool = False,
    record: Path | None = None,
    pauses: Pauses | None = None,
) -> TrainOnClusterResult:
    """Train proj in a Kubeflow TrainJob and wait for its end; log lines of rank 0 go to stderr.

    Args:
        config: ``config.kubernetes`` says where and with what; ``train.processes`` must be nodes x GPUs a node.
        run_name: name of the TrainJob and of the run's folder on the output volume. None: made of the settings.
        resume: start a job that has failed again, from its newest checkpoint, instead of reporting its end. A job
            that is created always resumes from a checkpoint of that run name if there is one.
        record: file that gets, when a job ends badly, its conditions, its pods' states and the newest warnings about
            them, one entry a job. None: trainjob.json in ``paths.reports``.
        pauses: waiting times, for tests.

    Raises:
        ConfigError: settings do not make a job, or a job of this name has other settings.
        ClusterError: the API server refuses or does not answer, or the job cannot start.
        TrainingError: the training failed.
        PreemptedError: it was stopped from outside, more than ``kubernetes.backoff_limit`` times.
    """
    name = run_name or run_name_for(config)
    manifest = train_job(config, name)
    check_manifest(manifest)
    if problems := image_problems(config.kubernetes):
        raise ConfigError(problems)
    return _Launch(config, name, manifest, record or config.paths.report(RECORD), pauses or Pauses()).run(resume)


class _Launch:
    """One call of `train_on_cluster`."""

    def __init__(self, config: RunConfig, name: str, manifest: Object, record: Path, pauses: Pauses) -> None:
        self._config = config
        self._section = config.kubernetes
        self._name = name
        self._manifest = manifest
        self._api = Api(config.kubernetes, pauses)
        self._attached = False
        self._ours = False  # whether an interrupt may delete the job
        self._record = record
        self._failures = _recorded(record, name)

    def run(self, resume: bool) -> TrainOnClusterResult:
        with _interrupted_by_sigterm():
            try:
                return self._until_done(resume)
            except KeyboardInterrupt:
                self._interrupted()
                raise

    def _until_done(self, resume: bool) -> TrainOnClusterResult:
        restarts = 0
        while True:
            job = self._make_or_find(resume or restarts > 0)
            outcome = Follower(self._api, self._section, job, self._attached).follow()
            if outcome.trouble is None:
                return self._result(outcome, restarts)
            recorded = self._write_record(outcome.record)
            if outcome.trouble.kind is not Kind.PREEMPTED or restarts >= self._section.backoff_limit:
                self._give_up(outcome.trouble, outcome, recorded)
            pause = self._api.pauses.restart * 2**restarts
            restarts += 1
            note(f"{outcome.trouble}; restart {restarts} of {self._section.backoff_limit} in {pause:.0f} s")
            self._api.pauses.clock.wait(pause)

    def _make_or_find(self, resume: bool) -> Object:
        where = f"TrainJob {self._section.namespace}/{self._name}"
        while True:
            job = self._api.get(TRAINJOBS, self._name)
            if job is None:
                self._ours = True
                job = self._api.create(TRAINJOBS, self._manifest)
                if job is not None:
                    self._attached = False
                    gpus, resource = self._section.gpus_per_node, self._section.gpu_resource
                    note(f"{where} is created: {self._section.nodes} x {f'{gpus} {resource}' if gpus else 'CPU'}")
                    return job
                continue  # another launcher was quicker, or an answer was lost: it is there now
            self._refuse_other_settings(job)
            self._ours = True
            failed = condition(job, trainer.TRAINJOB_FAILED)
            if job["metadata"].get("deletionTimestamp"):
                note(f"{where} is being deleted; a new one follows")
                self._wait_until_gone(job)
            elif resume and failed and failed["status"] == "True":
                note(f"{where} has failed before; it is replaced and resumes from its newest checkpoint")
                self._record_unfollowed(job)
                self._api.delete(TRAINJOBS, self._name)
                self._wait_until_gone(job)
            else:
                self._attached = True
                note(f"{where} exists already (since {job['metadata']['creationTimestamp']}); following it")
                return job

    def _refuse_other_settings(self, job: Object) -> None:
        there = settings_of(job)
        remedy = "Give another --run-name, put the settings back, or delete that job (`kubectl delete trainjob`)"
        if there is None:
            raise ConfigError.of(f"--run-name {self._name}", "is a TrainJob that ocrmem did not create", remedy)
        if changed := differences(there, pod_settings(self._config, self._name).as_dict()):
            message = f"is a TrainJob with other settings: {'; '.join(changed)}"
            raise ConfigError.of(f"--run-name {self._name}", message, remedy)

    def _wait_until_gone(self, job: Object) -> None:
        """Its pods may take their whole grace period to save a checkpoint."""
        patience = self._section.termination_grace_seconds + self._section.api_timeout_seconds
        pauses = self._api.pauses
        deadline = pauses.clock.now() + patience
        while pauses.clock.now() < deadline:
            found = self._api.get(TRAINJOBS, self._name)
            if found is None or found["metadata"].get("uid") != job["metadata"].get("uid"):
                return
            pauses.clock.wait(pauses.first)
        remedy = f"Check what holds it: `kubectl describe trainjob {self._name} -n {self._section.namespace}`"
        raise ClusterError.of(f"TrainJob {self._name}", f"still exists {patience} s after its deletion", remedy)

    def _interrupted(self) -> None:
        where = f"TrainJob {self._section.namespace}/{self._name}"
        if not self._ours:
            return
        if self._section.on_interrupt == "delete":
            self._api.delete(TRAINJOBS, self._name)
            note(f"{where} is deleted; its checkpoints stay in {run_folder(self._section, self._name)}")
        else:
            note(f"{where} continues. Run the command again to follow it, or `kubectl delete trainjob {self._name}`")

    def _record_unfollowed(self, job: Object) -> None:
        """Record why a job has failed whose launcher was gone by then."""
        if job["metadata"].get("uid") in {failure["uid"] for failure in self._failures}:
            return
        pods = self._api.list(PODS, {"labelSelector": f"{trainer.JOBSET_NAME_LABEL}={self._name}"})
        warnings = [
            event
            for event in self._api.list(EVENTS, {})
            if event.get("type") == "Warning" and concerns(event, job, self._section)
        ]
        note(self._write_record(failure_record(job, pods, warnings, None, [])))

    def _write_record(self, failure: Object) -> str:
        """Return where it is, in words: a record that cannot be written must not hide the failure that it is about."""
        self._failures = [known for known in self._failures if known["uid"] != failure["uid"]] + [failure]
        try:
            write_json(self._record, {"failures": self._failures})
        except OSError as error:
            return f"{self._record}, which was to hold what the cluster said, cannot be written ({error.strerror})"
        return f"conditions, pods and events are in {self._record}"

    def _give_up(self, trouble: Trouble, outcome: Outcome, recorded: str) -> NoReturn:
        message = str(trouble).removeprefix(f"{trouble.place}: ")
        if outcome.log:
            message += " (last log lines:\n    " + "\n    ".join(outcome.log) + "\n)"
        if trouble.kind in (Kind.PREEMPTED, Kind.FAILED):
            message += f" ({recorded})"
        if trouble.kind is Kind.PREEMPTED:
            raise PreemptedError.of(trouble.place, message, trouble.remedy)
        if trouble.kind is Kind.FAILED:
            raise TrainingError.of(trouble.place, message, trouble.remedy)
        # A job that has not started would start unseen once the cause is gone, and spend GPUs.
        self._api.delete(TRAINJOBS, self._name)
        said = "; what the cluster said:\n    " + "\n    ".join(outcome.evidence) + "\n" if outcome.evidence else ""
        raise ClusterError.of(trouble.place, f"{message} (the job is deleted; {recorded}{said})", trouble.remedy)

    def _result(self, outcome: Outcome, restarts: int) -> TrainOnClusterResult:
        job = self._api.get(TRAINJOBS, self._name) or {"metadata": {}}
        seconds, claim = _seconds(job), self._section.volumes.output.claim
        folder = run_folder(self._section, self._name)

        def written(name: str) -> OnVolume:
            return {"claim": claim, "path": f"{self._name}/{name}", "in_pods": f"{folder}/{name}"}

        took = "" if seconds is None else f" in {seconds:.0f} s"
        return {
            "run": self._name,
            "namespace": self._section.namespace,
            "state": "complete",
            "attached": self._attached,
            "restarts": restarts,
            "seconds": seconds,
            "pods": outcome.pods,
            "adapter": written("adapter"),
            "report": written("train.json"),
            "summary": [
                f"TrainJob {self._section.namespace}/{self._name} is complete{took}, {restarts} restarts",
                f"Adapter: {folder}/adapter (volume claim {claim}, {self._name}/adapter)",
            ],
        }


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM, as a pipeline sends it to a step that is cancelled, does what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _recorded(path: Path, name: str) -> list[Object]:
    """Return what earlier calls recorded of the same run."""
    try:
        failures = json.loads(path.read_text(encoding="utf-8"))["failures"]
        return [failure for failure in failures if failure["trainjob"] == name]
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or not a record: it is written again
        return []


def _seconds(job: Object) -> float | None:
    """From the job's making to its end, by the cluster's clock."""
    done = condition(job, trainer.TRAINJOB_COMPLETE) or {}
    times = (job["metadata"].get("creationTimestamp"), done.get("lastTransitionTime"))
    if not all(times):
        return None
    begun, ended = (datetime.fromisoformat(str(text).replace("Z", "+00:00")) for text in times)
    return (ended - begun).total_seconds()
