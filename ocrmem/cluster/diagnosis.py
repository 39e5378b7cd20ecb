"""Read from a pod's status, or an event, what is wrong with a run and what to do about it.

The reasons are those of kubelet, scheduler and controllers; see
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/ and, for DisruptionTarget,
https://kubernetes.io/docs/concepts/workloads/pods/disruptions/.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ocrmem.cluster.api import admission_remedy
from ocrmem.errors import Exit

Object = dict[str, Any]
_SIGKILL_EXIT = 137
_SIGTERM_EXIT = 143


class Kind(Enum):
    """The meaning of a trouble for the run."""

    WAITING = "waiting"  # may pass by itself: reported at once, fatal after pending_timeout_seconds
    STUCK = "stuck"  # will not pass by itself, and Kubernetes would wait for ever
    FAILED = "failed"
    PREEMPTED = "preempted"  # stopped from outside; can resume from a checkpoint


@dataclass(frozen=True)
class Trouble:
    """Something that is wrong with a pod, or that keeps a job's pods from being created.

    Attributes:
        place: the pod or job.
        reason: in Kubernetes' own word, to search for.
        message: what Kubernetes says about it.
        remedy: what to do.
        exit_code: of the container, if it has ended.
        finished: when it ended, RFC 3339; empty while it has not.
    """

    kind: Kind
    place: str
    reason: str
    message: str
    remedy: str
    exit_code: int | None = None
    finished: str = ""

    def __str__(self) -> str:
        said = " ".join(self.message.split()).rstrip(".")
        return f"{self.place}: {self.reason}" + (f": {said}" if said else "")


_RESUME = "Run the command again with --resume: it continues from the newest checkpoint"
_NO_NODE = "Check which of kubernetes.gpus_per_node, cpu, memory, node_selector and tolerations no node can meet"
_RUNTIME = "Its message says what Kubeflow Trainer cannot create; compare the runtime with k8s/base/runtime.yaml"
_REMEDIES = {
    "Unschedulable": _NO_NODE,
    "FailedScheduling": _NO_NODE,
    "ImagePullBackOff": "Correct kubernetes.image, or give the registry's Secret in kubernetes.image_pull_secrets",
    "InvalidImageName": "Correct kubernetes.image: registry/name:tag",
    "ErrImageNeverPull": "Load the image onto the nodes, or let the runtime's imagePullPolicy pull it",
    "CreateContainerConfigError": "Create the Secret or the key that it names, or correct kubernetes.secret_env",
    "CreateContainerError": "See `kubectl describe pod`; most often a volume or the command is wrong",
    "RunContainerError": "Use an image whose entry point is ocrmem (kubernetes.image)",
    "CrashLoopBackOff": "Read the log above; the container ends as soon as it starts",
    "OOMKilled": "Raise kubernetes.memory, or lower train.per_device_batch_size or kubernetes.shm_size (it counts to "
    "the memory)",
    "Evicted": "Raise kubernetes.memory or free the node's disk, then run the command again with --resume",
    "FailedMount": "Check that the claims of kubernetes.volumes exist, are bound, and can be mounted on so many nodes",
    "FailedAttachVolume": "The volume is in use on another node: use a ReadWriteMany storage class, or one node",
    "FailedCreate": "Its message says what refuses the pods: a quota, a limit, a policy or Pod Security",
    "JobCreationFailed": "Its message says what refuses the Job: a quota on jobs.batch, a policy or a webhook",
    "HeadlessServiceCreationFailed": "Its message says what refuses the Service that ranks find each other by: a quota "
    "on services, a policy, or a Service of that name",
    "PVCCreationFailed": "Its message says what refuses the claim: a quota on persistentvolumeclaims or storage",
    "TrainJobResourcesCreationFailed": _RUNTIME,
    "ResourcesCreationFailed": _RUNTIME,
    "FailedBinding": "Create the claim with a storage class that the cluster has (`kubectl get storageclass`)",
    "ProvisioningFailed": "Its message says what the storage class cannot provide: an access mode, or the size",
    "DeadlineExceeded": "Raise kubernetes.active_deadline_seconds and run the command again with --resume",
}
_STUCK = {"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"}
_STUCK |= {"CreateContainerError", "RunContainerError"}
_STARTING = {"", "ContainerCreating", "PodInitializing", "ErrImagePull"}  # ErrImagePull: the first try, others follow
# Events about what does not start, before or beside a pod's status. Of the scheduler and kubelet; of the Job's
# controller; of JobSet's (https://github.com/kubernetes-sigs/jobset, pkg/constants); of Trainer's; of volumes.
_HINDRANCES = {"FailedScheduling", "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"}
_HINDRANCES |= {"FailedCreate", "JobCreationFailed", "HeadlessServiceCreationFailed", "PVCCreationFailed"}
_HINDRANCES |= {"TrainJobResourcesCreationFailed", "FailedBinding", "ProvisioningFailed"}
# The Job's controller names a new random pod whenever it tries again.
_RANDOM_POD = re.compile(r'(pods? ")[^"]+(?=")')


def pod_trouble(pod: Object) -> Trouble | None:
    """Return what is wrong with a pod; None while it waits its turn, starts, runs, or has ended well."""
    status = pod.get("status") or {}
    place = f"pod {pod['metadata']['name']}"
    for container in _containers(status):
        ended = (container.get("state") or {}).get("terminated")
        if ended and ended.get("exitCode"):
            return _ended(place, pod, ended)
    if status.get("phase") == "Failed":
        return _ended(place, pod, {"reason": status.get("reason"), "message": status.get("message")})
    for container in _containers(status):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason") or ""
        if reason not in _STARTING:
            kind = Kind.STUCK if reason in _STUCK else Kind.WAITING
            return Trouble(kind, place, reason, waiting.get("message") or "", remedy(reason))
    scheduled = condition(pod, "PodScheduled")
    if scheduled and scheduled["status"] == "False" and scheduled.get("reason") == "Unschedulable":
        message = scheduled.get("message") or ""
        return Trouble(Kind.WAITING, place, "Unschedulable", message, remedy("Unschedulable"))
    return None


def event_trouble(event: Object) -> Trouble | None:
    """Return what an event says against the start of a job's pods; None for every other event."""
    reason = event.get("reason") or ""
    if event.get("type") == "Normal" or reason not in _HINDRANCES:
        return None
    involved, message = event["involvedObject"], event_message(event)
    place = f"{involved['kind'].lower()} {involved['name']}"
    advice = remedy(reason) if "quota" not in message else admission_remedy(message)
    return Trouble(Kind.WAITING, place, reason, message, advice)


def event_message(event: Object) -> str:
    """Return what an event says, alike whenever the same thing happens again."""
    text = event.get("message") or ""
    return _RANDOM_POD.sub(r"\1...", text) if event.get("reason") == "FailedCreate" else text


def event_time(event: Object) -> str:
    """Return when an event happened last (RFC 3339): those of events.k8s.io leave lastTimestamp empty."""
    series = event.get("series") or {}
    return event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime") or ""


def culprit(troubles: list[Trouble]) -> Trouble | None:
    """Return the trouble that the others follow from.

    When one pod of several dies the others soon fail too, with errors about their connections. A pod that was taken
    away or ran out of memory did not die of the others; among the rest the first to end is meant.
    """
    ended = [trouble for trouble in troubles if trouble.kind in (Kind.FAILED, Kind.PREEMPTED)]
    order = {"OOMKilled": 0}
    return min(
        ended,
        key=lambda trouble: (
            trouble.kind is not Kind.PREEMPTED,
            order.get(trouble.reason, 1),
            trouble.finished or "9",
            trouble.place,
        ),
        default=None,
    )


def condition(thing: Object, kind: str) -> Object | None:
    """Return the condition of that type in an object's status."""
    for entry in (thing.get("status") or {}).get("conditions") or []:
        if entry["type"] == kind:
            return entry
    return None


def has_ended(pod: Object) -> bool:
    """Return whether no container of the pod will write another log line."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def has_started(pod: Object) -> bool:
    """Return whether the pod's containers have started, so that there is a log."""
    states = [container.get("state") or {} for container in (pod.get("status") or {}).get("containerStatuses") or []]
    return any("running" in state or "terminated" in state for state in states)


def remedy(reason: str) -> str:
    return _REMEDIES.get(reason, "See `kubectl describe pod` for more")


def _ended(place: str, pod: Object, ended: Object) -> Trouble:
    code = ended.get("exitCode")
    reason = ended.get("reason") or "Error"
    message = ended.get("message") or ""
    kind, advice = Kind.FAILED, _REMEDIES.get(reason) or _exit_remedy(code)
    disruption = condition(pod, "DisruptionTarget")
    if code == Exit.PREEMPTED:
        kind, advice = Kind.PREEMPTED, _RESUME
        reason, message = "Preempted", "training saved a checkpoint and stopped (exit code 75)"
    elif disruption and disruption["status"] == "True" and reason != "OOMKilled":
        kind, advice = Kind.PREEMPTED, _RESUME
        reason, message = disruption.get("reason") or reason, disruption.get("message") or message
    elif code:
        message = f"exit code {code}" + (f": {message}" if message else "")
    return Trouble(kind, place, reason, message, advice, code, ended.get("finishedAt") or "")


def _exit_remedy(code: int | None) -> str:
    if code == 2:
        return "The settings or their files are wrong for the pods; the log above names them"
    if code in (126, 127):
        return "Use an image whose entry point is ocrmem (kubernetes.image)"
    if code == _SIGKILL_EXIT:
        return "It was killed: by the kernel for memory (raise kubernetes.memory), or after the grace period"
    if code == _SIGTERM_EXIT:
        return "It was stopped before a checkpoint was whole: raise kubernetes.termination_grace_seconds, then --resume"
    return "Read the log above; once its cause is fixed, run the command again with --resume"


def _containers(status: Object) -> list[Object]:
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
