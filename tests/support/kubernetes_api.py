"""The part of a Kubernetes API server that the launcher talks to, over real sockets, with nothing behind it.

Objects are plain dicts in one store with one growing resource version, so list, get, watch, bookmarks and 410 Gone
behave as the real server's do (https://kubernetes.io/docs/reference/using-api/api-concepts/). TrainJobs are checked as
strictly as the CRD checks them, and get what the real server adds. A scenario, run in a thread for every TrainJob,
plays Kubeflow Trainer, the scheduler and kubelet. Faults are put in front of calls.
"""

from __future__ import annotations

import copy
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
from support.clock import HandClock

Object = dict[str, Any]
TOKEN = "the-token-of-the-test-cluster"
NAMESPACE = "ocrmem"
_CLUSTER_WIDE = {"nodes", "namespaces", "clustertrainingruntimes", "selfsubjectaccessreviews"}
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "AlreadyExists",
    410: "Expired",
}


@dataclass
class Fault:
    """What happens to the next calls of a verb on a resource, instead of an answer.

    Attributes:
        status: HTTP status; 0 closes the connection without an answer.
        times: how many calls meet it; -1: all of them.
        headers: such as Retry-After.
        after: serve the call, then lose the answer (a create that did happen).
        cut: for a watch or a log: end the connection after so many bytes of the stream.
    """

    verb: str
    resource: str
    status: int = 500
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False
    cut: int | None = None


@dataclass(frozen=True)
class Call:
    verb: str
    resource: str  # as roles write it: pods/log
    group: str
    namespace: str
    name: str
    query: dict[str, str]
    body: Object | None


class FakeCluster:
    """A cluster with the namespace, the runtime, the claims and the secret of k8s/base, and one GPU node."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}  # by plural and name
        self.version = 100
        self.history: list[tuple[int, str, str, Object]] = []  # version, plural, type, object
        self.incarnation = 0  # connections of an earlier one are closed
        self.forgotten = 0  # watches from before this version are gone
        self.changed = threading.Condition()
        self.logs: dict[str, list[tuple[str, str]]] = {}
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.forbidden: set[tuple[str, str]] = set()
        self.before: Callable[[Call], None] = lambda call: None  # runs before a call is answered
        self.scenario: Callable[[FakeCluster, str], None] = lambda cluster, job: None
        self.scenario_errors: list[BaseException] = []
        self.clock = HandClock()
        self.told = ""  # what a person has seen on stderr so far
        self.over = threading.Event()  # the launcher has returned
        self.stopped = False
        self._uid = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.cluster = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._furnish()
        self._thread.start()

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig with the cluster's address and token."""
        value = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
        }
        path.write_text(yaml.safe_dump(value), encoding="utf-8")
        return path

    # What a scenario does, as the controllers would.

    def add_pod(self, job: str, index: int = 0, suffix: str = "aaaaa", node: str | None = None) -> str:
        name = f"{job}-node-0-{index}-{suffix}"
        labels = {
            "jobset.sigs.k8s.io/jobset-name": job,
            "jobset.sigs.k8s.io/replicatedjob-name": "node",
            "batch.kubernetes.io/job-completion-index": str(index),
        }
        spec = {"containers": [{"name": "node", "image": "x"}]} | ({"nodeName": node} if node else {})
        self.put("pods", {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"phase": "Pending"}})
        self.logs[name] = []
        return name

    def pod(self, name: str, phase: str, state: Object | None = None, node: str = "gpu-1", **status: Any) -> None:
        """Set a pod's phase, the state of its container, and further fields of its status."""
        pod = self.get("pods", name)
        pod["status"] = {"phase": phase, **status}
        if state is not None:
            pod["status"]["containerStatuses"] = [{"name": "node", "state": state}]
            pod["spec"]["nodeName"] = node
        self.put("pods", pod)

    def run_pod(self, name: str, node: str = "gpu-1") -> None:
        self.pod(name, "Running", {"running": {"startedAt": now()}}, node)

    def end_pod(self, name: str, code: int = 0, reason: str | None = None, message: str = "", **status: Any) -> None:
        reason = reason or ("Completed" if code == 0 else "Error")
        ended = {"exitCode": code, "reason": reason, "message": message, "finishedAt": now()}
        self.pod(name, "Failed" if code else "Succeeded", {"terminated": ended}, **status)

    def log(self, pod: str, *lines: str, stamp: str | None = None) -> None:
        with self.changed:
            for line in lines:
                self.logs[pod].append((stamp or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), line))
            self.changed.notify_all()

    def event(self, kind: str, name: str, reason: str, message: str, when: str | None = None) -> None:
        self._uid += 1
        event = {
            "metadata": {"name": f"{name}.{self._uid}"},
            "involvedObject": {"kind": kind, "name": name},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "lastTimestamp": when or now(),
        }
        self.put("events", event)

    def job_condition(self, job: str, kind: str, reason: str, message: str = "", status: str = "True") -> None:
        found = self.get("trainjobs", job)
        conditions = found.setdefault("status", {}).setdefault("conditions", [])
        conditions[:] = [entry for entry in conditions if entry["type"] != kind]
        conditions.append(
            {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now()}
        )
        self.put("trainjobs", found)

    def wait_for_call(self, verb: str, resource: str, times: int = 1) -> None:
        """Until the launcher has made that call so often."""
        self.wait(lambda: self.called(verb, resource) >= times)

    def called(self, verb: str, resource: str) -> int:
        return sum(call.verb == verb and call.resource == resource for call in self.calls)

    def wait_told(self, text: str) -> None:
        """Until the launcher has said so."""
        self.wait(lambda: text in self.told)

    def hear(self, text: str) -> None:
        with self.changed:
            self.told += text
            self.changed.notify_all()

    def let_time_pass(self) -> None:
        """Until the launcher has given up, however long it would have waited."""
        while not self.over.wait(0.01) and not self.stopped:
            self.clock.advance(100)

    def wait(self, holds: Callable[[], bool], seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        with self.changed:
            while not holds():
                if self.stopped or time.monotonic() > deadline:
                    raise TimeoutError("the scenario waited in vain")
                self.changed.wait(1)

    # The store.

    def get(self, plural: str, name: str) -> Object:
        with self.changed:
            return copy.deepcopy(self.objects[plural, name])

    def put(self, plural: str, thing: Object) -> Object:
        with self.changed:
            name = thing["metadata"]["name"]
            kind = "MODIFIED" if (plural, name) in self.objects else "ADDED"
            self.version += 1
            thing = copy.deepcopy(thing)
            thing["metadata"]["resourceVersion"] = str(self.version)
            if plural not in _CLUSTER_WIDE:
                thing["metadata"]["namespace"] = NAMESPACE
            if "uid" not in thing["metadata"]:
                self._uid += 1
                thing["metadata"] |= {"uid": f"uid-{self._uid}", "creationTimestamp": now()}
            self.objects[plural, name] = thing
            self.history.append((self.version, plural, kind, copy.deepcopy(thing)))
            self.changed.notify_all()
            return copy.deepcopy(thing)

    def remove(self, plural: str, name: str) -> None:
        with self.changed:
            thing = self.objects.pop((plural, name))
            self.version += 1
            thing["metadata"]["resourceVersion"] = str(self.version)
            self.history.append((self.version, plural, "DELETED", thing))
            self.changed.notify_all()

    def remove_job(self, job: str) -> None:
        """As the garbage collector: the pods first, then their owner."""
        for plural, name in list(self.objects):
            if plural == "pods" and name.startswith(f"{job}-node-"):
                self.remove("pods", name)
        self.remove("trainjobs", job)

    def drop_connections(self) -> None:
        """End every watch and log that is open, as a server that restarts does."""
        with self.changed:
            self.incarnation += 1
            self.changed.notify_all()

    def forget(self) -> None:
        """Drop the history, as etcd does every few minutes: watches from before now are answered with 410."""
        with self.changed:
            self.forgotten = self.version
            self.history.clear()
            self.changed.notify_all()

    def names(self, plural: str) -> list[str]:
        return [name for kind, name in self.objects if kind == plural]

    def used(self) -> set[tuple[str, str, str]]:
        """Group, resource and verb of every call that was made."""
        return {(call.group, call.resource, call.verb) for call in self.calls}

    def start_scenario(self, job: str) -> None:
        def play() -> None:
            try:
                self.scenario(self, job)
            except BaseException as error:
                self.scenario_errors.append(error)
                if ("trainjobs", job) in self.objects:  # or the launcher would wait for ever
                    self.remove_job(job)
                raise

        threading.Thread(target=play, daemon=True).start()

    def fault_for(self, verb: str, resource: str) -> Fault | None:
        with self.changed:
            for fault in self.faults:
                if (fault.verb, fault.resource) == (verb, resource) and fault.times:
                    fault.times -= 1
                    return fault
        return None

    def _furnish(self) -> None:
        self.put("namespaces", {"metadata": {"name": NAMESPACE}})
        self.put("clustertrainingruntimes", {"metadata": {"name": "ocrmem-deepspeed"}})
        for name in ("dataset", "features", "models", "output"):
            claim = {"metadata": {"name": f"ocrmem-{name}"}, "status": {"phase": "Bound"}}
            self.put("persistentvolumeclaims", claim)
        self.put("secrets", {"metadata": {"name": "ocrmem-secrets"}, "data": {"WANDB_API_KEY": "bm90IGEga2V5"}})
        capacity = {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "8"}
        self.put("nodes", {"metadata": {"name": "gpu-1"}, "status": {"allocatable": capacity}})


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def running_cluster() -> Iterator[FakeCluster]:
    cluster = FakeCluster()
    try:
        yield cluster
    finally:
        cluster.stop()


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are interrupted leave their connections; that is part of the tests."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet: two would wait 40 ms for each other
    disable_nagle_algorithm = True

    def log_message(self, *arguments: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    @property
    def cluster(self) -> FakeCluster:
        return self.server.cluster  # type: ignore[attr-defined, no-any-return]

    def _serve(self, method: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        call = _parse(method, self.path, body)
        cluster = self.cluster
        with cluster.changed:
            cluster.calls.append(call)
            cluster.changed.notify_all()
        cluster.before(call)
        fault = cluster.fault_for(call.verb, call.resource)
        try:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise _Refused(401, "Unauthorized")
            if fault and fault.cut is None and not fault.after:
                return self._fail(fault)
            if (call.verb, call.resource) in cluster.forbidden:
                user = "system:serviceaccount:ocrmem:ocrmem"
                raise _Refused(403, f'{call.resource} is forbidden: User "{user}" cannot {call.verb} {call.resource}')
            cut = fault.cut if fault else None
            if call.resource == "pods/log":
                return self._log(call, cut)
            if call.verb == "watch":
                return self._watch(call, cut)
            answer = self._answer(call)
            if fault:
                return self._fail(fault)
            self._send(201 if method == "POST" else 200, answer)
        except _Refused as refused:
            self._send(refused.status, _status(refused.status, str(refused)))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _fail(self, fault: Fault) -> None:
        if fault.status == 0:
            self.close_connection = True
            return
        self._send(fault.status, _status(fault.status, "a fault of the test"), fault.headers)

    def _answer(self, call: Call) -> Object:
        cluster, plural = self.cluster, call.resource
        if call.verb == "list":
            with cluster.changed:
                items = [
                    thing for (kind, _), thing in cluster.objects.items() if kind == plural and _selected(thing, call)
                ]
                return copy.deepcopy({"metadata": {"resourceVersion": str(cluster.version)}, "items": items})
        if call.verb == "create":
            return self._create(call)
        if (plural, call.name) not in cluster.objects:
            raise _Refused(404, f'{plural} "{call.name}" not found')
        if call.verb == "delete":
            if (call.body or {}).get("propagationPolicy") not in ("Foreground", "Background", "Orphan"):
                raise _Refused(400, "propagationPolicy is missing")
            cluster.remove_job(call.name)
            return {"kind": "Status", "status": "Success"}
        return cluster.get(plural, call.name)

    def _create(self, call: Call) -> Object:
        cluster, body = self.cluster, call.body or {}
        if call.resource == "selfsubjectaccessreviews":
            asked = body["spec"]["resourceAttributes"]
            resource = asked["resource"] + (f"/{asked['subresource']}" if asked.get("subresource") else "")
            return {**body, "status": {"allowed": (asked["verb"], resource) not in cluster.forbidden}}
        check_train_job(body)
        name = body["metadata"]["name"]
        if body["metadata"].get("namespace") != call.namespace:
            raise _Refused(400, "the namespace of the object does not match the request")
        runtime = body["spec"]["runtimeRef"]["name"]
        if ("clustertrainingruntimes", runtime) not in cluster.objects:
            raise _Refused(403, f"admission webhook denied the request: ClusterTrainingRuntime {runtime} not found")
        with cluster.changed:
            if ("trainjobs", name) in cluster.objects:
                raise _Refused(409, f'trainjobs "{name}" already exists')
            made = cluster.put("trainjobs", _defaulted(body))
        cluster.start_scenario(name)
        return made

    def _watch(self, call: Call, cut: int | None) -> None:
        cluster = self.cluster
        version = int(call.query["resourceVersion"])
        deadline = time.monotonic() + float(call.query["timeoutSeconds"])
        self._begin_stream()
        incarnation = cluster.incarnation
        while True:
            with cluster.changed:
                if incarnation != cluster.incarnation:
                    self.close_connection = True
                    return
                gone = version < cluster.forgotten
                news = [entry for entry in cluster.history if entry[0] > version and entry[1] == call.resource]
                if not gone and not news and not cluster.stopped and time.monotonic() < deadline:
                    cluster.changed.wait(max(deadline - time.monotonic(), 0))
                    continue
            if gone:
                message = f"too old resource version: {version}"
                self._line({"type": "ERROR", "object": _status(410, message)})
                break
            for number, _, kind, thing in news:
                version = number
                if _selected(thing, call):
                    cut = self._line({"type": kind, "object": thing}, cut)
                    if cut is not None and cut <= 0:
                        self.close_connection = True  # in the middle of a line
                        return
            if cluster.stopped or time.monotonic() >= deadline:
                bookmark = {"metadata": {"resourceVersion": str(version)}}
                self._line({"type": "BOOKMARK", "object": bookmark})
                break
        self.wfile.write(b"0\r\n\r\n")

    def _log(self, call: Call, cut: int | None) -> None:
        cluster = self.cluster
        pod = cluster.objects.get(("pods", call.name))
        if pod is None:
            raise _Refused(404, f'pods "{call.name}" not found')
        if call.query["container"] != "node":
            raise _Refused(400, f"container {call.query['container']} is not valid for pod {call.name}")
        if "containerStatuses" not in pod["status"]:
            raise _Refused(400, f'container "node" in pod "{call.name}" is waiting to start: ContainerCreating')
        since = float(call.query.get("sinceSeconds", "inf"))
        oldest = "" if since == float("inf") else datetime.fromtimestamp(time.time() - since, UTC).isoformat()
        lines = [line for line in cluster.logs[call.name] if line[0] >= oldest]
        lines = lines[-int(call.query["tailLines"]) :] if "tailLines" in call.query else lines
        sent = len(cluster.logs[call.name])
        self._begin_stream()
        incarnation = cluster.incarnation
        while True:
            for stamp, text in lines:
                raw = (f"{stamp} {text}\n" if call.query.get("timestamps") == "true" else f"{text}\n").encode()
                if cut is not None and len(raw) >= cut:
                    self._chunk(raw[:cut])
                    self.close_connection = True
                    return
                cut = None if cut is None else cut - len(raw)
                self._chunk(raw)
            with cluster.changed:
                if incarnation != cluster.incarnation:
                    self.close_connection = True
                    return
                lines = cluster.logs[call.name][sent:]
                sent += len(lines)
                phase = cluster.objects.get(("pods", call.name), {}).get("status", {}).get("phase")
                if not lines:
                    if call.query.get("follow") != "true" or phase != "Running" or cluster.stopped:
                        break
                    cluster.changed.wait(5)
        self.wfile.write(b"0\r\n\r\n")

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def _line(self, value: Object, cut: int | None = None) -> int | None:
        raw = json.dumps(value).encode() + b"\n"
        self._chunk(raw if cut is None else raw[: max(cut, 1)])
        return None if cut is None else cut - len(raw)

    def _chunk(self, raw: bytes) -> None:
        self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")
        self.wfile.flush()

    def _send(self, status: int, value: Object, headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(raw)
        self.wfile.flush()


def check_train_job(body: Object) -> None:
    """As the CRD's schema: every field is known and of its type."""
    try:
        known = TrainerV1alpha1TrainJob.from_dict(body)
    except ValueError as error:
        raise _Refused(422, f"TrainJob is invalid: {error}") from None
    if known is None or known.to_dict() != body:
        raise _Refused(400, "strict decoding error: unknown field")


def _defaulted(body: Object) -> Object:
    """What the real server, its webhooks and Kueue add to a job."""
    job = copy.deepcopy(body)
    job["spec"] |= {"managedBy": "trainer.kubeflow.org/trainjob-controller", "suspend": False}
    for patch in job["spec"]["runtimePatches"]:
        patch["time"] = now()
    job["spec"]["runtimePatches"].insert(0, {"manager": "kueue.x-k8s.io/manager", "time": now()})
    job["metadata"]["managedFields"] = [{"manager": "OpenAPI-Generator", "operation": "Update"}]
    return job


def _parse(method: str, path: str, body: Object | None) -> Call:
    parts = urlsplit(path)
    words = parts.path.strip("/").split("/")
    group, words = (words[1], words[3:]) if words[0] == "apis" else ("", words[2:])
    namespace = ""
    if words[0] == "namespaces" and len(words) > 2:
        namespace, words = words[1], words[2:]
    plural, name, sub = [*words, "", ""][:3]
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    verb = {"POST": "create", "DELETE": "delete"}.get(method, "get" if name else "list")
    if verb == "list" and query.get("watch") == "true":
        verb = "watch"
    return Call(verb, f"{plural}/{sub}" if sub else plural, group, namespace, name, query, body)


def _selected(thing: Object, call: Call) -> bool:
    labels = thing["metadata"].get("labels") or {}
    wanted = [term.split("=", 1) for term in call.query.get("labelSelector", "").split(",") if term]
    fields = call.query.get("fieldSelector", "")
    return all(labels.get(key) == value for key, value in wanted) and (
        not fields or fields == f"metadata.name={thing['metadata']['name']}"
    )


def _status(status: int, message: str) -> Object:
    reason = _REASONS.get(status, "InternalError")
    return {"kind": "Status", "status": "Failure", "code": status, "reason": reason, "message": message}
