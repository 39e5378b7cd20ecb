"""What explains the end of a job and is lost with it: conditions, the states of its pods, warnings of events."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ocrmem.cluster.diagnosis import Trouble, event_message, event_time
from ocrmem.cluster.sdk import trainer
from ocrmem.config import KubernetesSection
from ocrmem.config.kubernetes_section import VolumesSection
from ocrmem.secrets import redact, redacted

Object = dict[str, Any]
_LINES = 20
_WARNINGS = 50
_OF_A_POD = ("reason", "message", "conditions", "initContainerStatuses", "containerStatuses")


def concerns(event: Object, job: Object, section: KubernetesSection) -> bool:
    """Return whether an event is about this job, what was made for it, or a claim that it mounts."""
    involved = event["involvedObject"]
    name, kind = involved.get("name", ""), involved.get("kind")
    own: str = job["metadata"]["name"]
    claims = {volume.claim for field in VolumesSection.model_fields if (volume := getattr(section.volumes, field))}
    ours = name == own or name.startswith(f"{own}-{trainer.NODE}-")
    if not ours and not (kind == "PersistentVolumeClaim" and name in claims):
        return False
    return event_time(event)[:19] >= job["metadata"]["creationTimestamp"][:19]  # not of an earlier job of this name


def warning_line(event: Object) -> str:
    """Return what a warning says, alike whenever the same thing happens again."""
    involved, message = event["involvedObject"], " ".join(event_message(event).split())
    return f"{involved.get('kind', '')} {involved.get('name', '')}: {event.get('reason')}: {message}"


def newest(job: Object, pods: list[Object], warnings: list[Object]) -> list[str]:
    """Return the newest conditions and warnings, a line each."""
    things = [
        (f"TrainJob {job['metadata']['name']}", job),
        *((f"Pod {pod['metadata']['name']}", pod) for pod in pods),
    ]
    lines = [
        f"{entry.get('lastTransitionTime') or ''} {what}: {entry['type']} is {entry['status']}"
        f" ({entry.get('reason') or ''}: {' '.join((entry.get('message') or '').split())})"
        for what, thing in things
        for entry in _status(thing).get("conditions") or []
        if entry.get("message") or entry.get("reason")
    ]
    lines += [f"{event_time(event)} {warning_line(event)}" for event in warnings]
    return [redact(line.strip()) for line in sorted(lines)[-_LINES:]]


def failure_record(
    job: Object, pods: list[Object], warnings: list[Object], trouble: Trouble | None, log: list[str]
) -> Object:
    """Return all of it as JSON, without keys.

    Args:
        job: as it was last seen.
        warnings: events of type Warning; the newest are kept.
        trouble: the verdict; None for a job that nobody has followed to its end.
    """
    named = [
        {
            "time": event_time(event),
            "kind": event["involvedObject"].get("kind"),
            "name": event["involvedObject"].get("name"),
            "reason": event.get("reason"),
            "message": event.get("message"),
        }
        for event in sorted(warnings, key=event_time)[-_WARNINGS:]
    ]
    return redacted(
        {
            "trainjob": job["metadata"]["name"],
            "namespace": job["metadata"].get("namespace"),
            "uid": job["metadata"].get("uid"),
            "created": job["metadata"]["creationTimestamp"],
            "verdict": trouble and {**asdict(trouble), "kind": trouble.kind.value},
            "conditions": _status(job).get("conditions") or [],
            "pods": [{**pod_summary(pod), **{key: _status(pod).get(key) for key in _OF_A_POD}} for pod in pods],
            "warnings": named,
            "log": log,
        }
    )


def pod_summary(pod: Object) -> Object:
    """Return name, node, phase and exit code of a pod."""
    states = [container.get("state") or {} for container in _status(pod).get("containerStatuses") or []]
    codes = [state["terminated"].get("exitCode") for state in states if "terminated" in state]
    return {
        "name": pod["metadata"]["name"],
        "node": pod["spec"].get("nodeName"),
        "phase": _status(pod).get("phase"),
        "exit_code": codes[0] if codes else None,
    }


def _status(thing: Object) -> Object:
    return thing.get("status") or {}
