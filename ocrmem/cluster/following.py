"""Follow a TrainJob to its end: print what happens on the way, and reach the verdict.

Three watches (the job, its pods, the namespace's events) and the log of rank 0 put their news into one queue; this
thread alone reads it, so what is known is changed in one place. The job's own conditions have the last word where
they come: a failed pod is reported at once, but the runtime may replace it. Where Kubernetes would wait for ever
(an image that cannot be pulled, a pod that fits nowhere) the verdict is given here.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any

from ocrmem.cluster.api import Api, ApiError
from ocrmem.cluster.diagnosis import (
    Kind,
    Trouble,
    condition,
    culprit,
    event_trouble,
    has_ended,
    has_started,
    pod_trouble,
    remedy,
)
from ocrmem.cluster.evidence import concerns, failure_record, newest, pod_summary, warning_line
from ocrmem.cluster.logs import LogEnd, LogFollower, LogLine
from ocrmem.cluster.permissions import EVENTS, POD_LOGS, PODS, TRAINJOBS
from ocrmem.cluster.sdk import trainer
from ocrmem.cluster.watching import Changed, Listed, Lost, Watcher
from ocrmem.config import KubernetesSection
from ocrmem.console import note
from ocrmem.secrets import redact

Object = dict[str, Any]
TAIL_LINES = 20


@dataclass(frozen=True)
class Outcome:
    """The end of a job.

    Attributes:
        trouble: what went wrong; None for a job that has completed.
        pods: name, node, phase and exit code of each.
        log: the last lines of the pod that the trouble is about.
        evidence: what the cluster said about it: conditions and warnings, a line each.
        record: the same and more as JSON: what is lost when the job is deleted.
    """

    trouble: Trouble | None
    pods: list[Object]
    log: list[str]
    evidence: list[str]
    record: Object


class Follower:
    """Follow one TrainJob.

    Args:
        job: as the API server gave it when it was made or found.
        attached: whether it was found.
    """

    def __init__(self, api: Api, section: KubernetesSection, job: Object, attached: bool) -> None:
        self._api = api
        self._clock = api.pauses.clock
        self._attached = attached
        self._section = section
        self._job: Object | None = job  # None once it is gone
        self._last_seen = job
        self._name: str = job["metadata"]["name"]
        self._uid = job["metadata"].get("uid")
        self._updates: Queue[Any] = Queue()
        self._stop = threading.Event()
        self._pods: dict[str, Object] = {}
        self._failures: dict[str, Trouble] = {}  # by the pod's index; a successor takes its failure away
        # By what told of it ("pod" status or "event") and place, with the time when it was first seen.
        self._hindrances: dict[tuple[str, str], tuple[Trouble, float]] = {}
        self._logs: dict[str, LogFollower] = {}
        self._open_logs: set[str] = set()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._told: set[str] = set()
        self._tenth = 0
        self._warnings: dict[str, Object] = {}  # by what they say, the newest of each
        self._began = False
        self._decided = False
        self._since: dict[str, float] = {}

    def follow(self) -> Outcome:
        """Print what happens until the job has ended, or is given up.

        Raises:
            ClusterError: the API server refuses, or does not answer for too long.
        """
        job = {"fieldSelector": f"metadata.name={self._name}"}
        pods = {"labelSelector": f"{trainer.JOBSET_NAME_LABEL}={self._name}"}
        for resource, query in ((TRAINJOBS, job), (PODS, pods), (EVENTS, {})):
            Watcher(self._api, resource, query, self._updates, self._stop).start()
        try:
            while True:
                self._take_next()
                done, trouble = self._verdict(self._clock.now())
                if done:  # the pods' watch may be behind the job's, so they are looked at once more
                    self._see_pods(self._api.list(PODS, pods))
                    done, trouble = self._verdict(self._clock.now())
                if done:
                    return self._outcome(trouble)
        finally:
            self._stop.set()

    def _take_next(self) -> None:
        try:
            update = self._updates.get(timeout=self._api.pauses.tick)
        except Empty:
            return
        match update:
            case LogLine():
                self._tail.append(update.text)
                note(redact(update.text))
            case LogEnd():
                self._open_logs.discard(update.pod)
                if update.error:
                    note(f"The log of {update.pod} is not shown: {update.error}")
            case Lost() if not self._decided:
                raise update.error
            case Listed() if update.resource is PODS:
                self._see_pods(update.items)
            case Listed() if update.resource is TRAINJOBS:
                self._see_job(update.items[0] if update.items else None)
            case Listed():
                for event in update.items:
                    self._see_event(event)
            case Changed() if update.resource is PODS:
                (self._pod_gone if update.deleted else self._see_pod)(update.object)
            case Changed() if update.resource is TRAINJOBS:
                self._see_job(None if update.deleted else update.object)
            case Changed() if not update.deleted:
                self._see_event(update.object)

    def _see_job(self, job: Object | None) -> None:
        # Another uid: this job was deleted, and one of the same name made.
        self._job = job if job and job["metadata"].get("uid") == self._uid else None
        self._last_seen = self._job or self._last_seen
        if job and _true(job, "Suspended"):
            queue = f" in the queue {self._section.queue}" if self._section.queue else ""
            self._tell(f"TrainJob {self._name} is suspended: it waits{queue}")
        progress = ((job or {}).get("status") or {}).get("trainerStatus") or {}
        tenth = (progress.get("progressPercentage") or 0) // 10
        if tenth > self._tenth:  # the status is sent every five seconds
            self._tenth = tenth
            self._tell(f"TrainJob {self._name}: {progress_line(progress)}")

    def _see_pods(self, pods: list[Object]) -> None:
        for name in self._pods.keys() - {pod["metadata"]["name"] for pod in pods}:
            self._pod_gone(self._pods[name])
        for pod in pods:
            self._see_pod(pod)

    def _see_pod(self, pod: Object) -> None:
        name, index = pod["metadata"]["name"], _index(pod)
        place = f"pod {name}"
        self._pods[name] = pod
        phase = (pod.get("status") or {}).get("phase", "Pending")
        node = pod["spec"].get("nodeName")
        self._tell(f"{place}: {phase.lower()}" + (f" on {node}" if node and phase == "Running" else ""))
        trouble = pod_trouble(pod)
        if trouble and trouble.kind in (Kind.FAILED, Kind.PREEMPTED):
            self._failures[index] = trouble
            self._tell(str(trouble))
        else:
            self._failures.pop(index, None)
        if trouble and trouble.kind in (Kind.WAITING, Kind.STUCK):
            self._hindered("pod", trouble)
        else:
            self._hindrances.pop(("pod", place), None)
        self._forget_events(pod)
        if has_started(pod):
            self._began = True
            if index == "0" and name not in self._logs:
                # Of a job that was found, only the end of what it has written so far.
                tail = TAIL_LINES if self._attached and not self._logs else None
                self._logs[name] = LogFollower(self._api, name, trainer.NODE, self._updates, self._stop, tail)
                self._open_logs.add(name)
                self._tail.clear()
                self._logs[name].start()
        if has_ended(pod) and name in self._logs:
            self._logs[name].finish()

    def _pod_gone(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        self._pods.pop(name, None)
        for told_by in ("pod", "event"):
            self._hindrances.pop((told_by, f"pod {name}"), None)
        if name in self._logs:
            self._logs[name].finish()
        self._tell(f"pod {name}: deleted")

    def _see_event(self, event: Object) -> None:
        if not concerns(event, self._last_seen, self._section):
            return
        if event.get("type") == "Warning":
            self._warnings[warning_line(event)] = event
        trouble = event_trouble(event)
        known = self._pods.get(event["involvedObject"].get("name", ""))
        if trouble and not (known and (has_started(known) or has_ended(known))):
            self._hindered("event", trouble)

    def _forget_events(self, pod: Object) -> None:
        """Forget what events said against the start of pods once it no longer holds; no event takes it back."""
        place = f"pod {pod['metadata']['name']}"
        for told_by, about in list(self._hindrances):
            reason = self._hindrances[told_by, about][0].reason
            over = has_started(pod) or (reason == "FailedScheduling" and pod["spec"].get("nodeName"))
            complete = not about.startswith("pod ") and len(self._pods) >= self._section.nodes
            if told_by == "event" and (complete or (about == place and over)):
                del self._hindrances[told_by, about]

    def _hindered(self, told_by: str, trouble: Trouble) -> None:
        key = (told_by, trouble.place)
        _, since = self._hindrances.get(key, (trouble, self._clock.now()))
        self._hindrances[key] = (trouble, since)
        self._tell(str(trouble))

    def _verdict(self, now: float) -> tuple[bool, Trouble | None]:
        job, place = self._job, f"TrainJob {self._name}"
        if job is None:
            return True, Trouble(Kind.FAILED, place, "Deleted", "by someone else", "Run the command again to start it")
        suspended = _true(job, "Suspended")
        if _true(job, trainer.TRAINJOB_COMPLETE):
            return True, None
        failed = condition(job, trainer.TRAINJOB_FAILED) if _true(job, trainer.TRAINJOB_FAILED) else None
        if failed:
            reason, message = failed.get("reason") or "Failed", failed.get("message") or ""
            whole = Trouble(Kind.FAILED, place, reason, message, remedy(reason))
            return True, whole if reason == "DeadlineExceeded" else culprit(list(self._failures.values())) or whole
        for trouble, since in self._hindrances.values():
            if trouble.kind is Kind.STUCK or now - since > self._section.pending_timeout_seconds:
                return True, trouble
        found = culprit(list(self._failures.values()))
        # After a preemption the runtime starts all pods again, once each has had its grace period.
        patience = float(self._section.pending_timeout_seconds + self._section.termination_grace_seconds)
        limit = self._api.pauses.settle if found and found.kind is Kind.FAILED else patience
        # A queue that takes the GPUs back suspends the job, ends its pods, and makes new ones when it has room.
        if self._longer("settle", found is not None and not suspended, now, limit):
            return True, found
        waits = not self._pods and not self._began and not suspended
        if self._longer("no pods", waits, now, self._section.pending_timeout_seconds):
            if self._hindrances:  # what the cluster says about it explains more than its absence
                return True, min(self._hindrances.values(), key=lambda entry: entry[1])[0]
            message = f"no pod was created for {self._section.pending_timeout_seconds} s, and no event says why"
            advice = "Check that the controllers of Kubeflow Trainer and JobSet run (`kubectl get pods -A`)"
            return True, Trouble(Kind.WAITING, place, "NoPods", message, advice)
        return False, None

    def _longer(self, what: str, holds: bool, now: float, limit: float) -> bool:
        """Return whether `what` has held without a break for longer than `limit` seconds."""
        if not holds:
            self._since.pop(what, None)
            return False
        return now - self._since.setdefault(what, now) > limit

    def _outcome(self, trouble: Trouble | None) -> Outcome:
        self._decided = True
        pods = [pod for _, pod in sorted(self._pods.items())]
        if trouble is None or trouble.kind in (Kind.FAILED, Kind.PREEMPTED):
            self._finish_logs()
        log, job, warnings = self._last_lines(trouble), self._last_seen, list(self._warnings.values())
        record = failure_record(job, pods, warnings, trouble, log)
        return Outcome(trouble, [pod_summary(pod) for pod in pods], log, newest(job, pods, warnings), record)

    def _finish_logs(self) -> None:
        deadline = self._clock.now() + self._api.pauses.logs
        for follower in self._logs.values():
            follower.finish()
        while self._open_logs and self._clock.now() < deadline:
            self._take_next()

    def _last_lines(self, trouble: Trouble | None) -> list[str]:
        if trouble is None or not self._began:
            return []
        name = trouble.place.removeprefix("pod ")
        if name in self._logs or name not in self._pods:
            return [redact(line) for line in self._tail]
        query = {"container": trainer.NODE, "tailLines": TAIL_LINES}
        try:
            lines = list(self._api.lines(self._api.open(POD_LOGS, "get", name, query)))
        except ApiError:  # the reason is reported without them too
            return []
        return [redact(line.decode("utf-8", errors="replace").rstrip()) for line in lines]

    def _tell(self, text: str) -> None:
        """Print a line once; watches repeat what has not changed."""
        if text not in self._told:
            self._told.add(text)
            note(redact(text))


def _true(job: Object, kind: str) -> bool:
    found = condition(job, kind)
    return found is not None and found["status"] == "True"


def progress_line(status: Object) -> str:
    """Return what a running job reports of itself: transformers' KubeflowCallback sends it to Kubeflow Trainer.

    Args:
        status: ``status.trainerStatus`` of the TrainJob.
    """
    metrics = {entry["name"]: entry["value"] for entry in status.get("metrics") or []}
    parts = [f"{status['progressPercentage']} % done"]
    if "current_step" in metrics:
        parts.append(f"step {metrics['current_step']} of {metrics.get('total_steps', '?')}")
    if "loss" in metrics:
        parts.append(f"loss {metrics['loss']}")
    if left := status.get("estimatedRemainingSeconds"):
        parts.append(f"about {left // 60} min left" if left >= 120 else f"about {left} s left")
    return ", ".join(parts)


def _index(pod: Object) -> str:
    return (pod["metadata"].get("labels") or {}).get(trainer.JOB_INDEX_LABEL, pod["metadata"]["name"])
