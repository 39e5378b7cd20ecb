"""The part of a Kubernetes API server that the launcher talks to, over real sockets, with nothing behind it.

Objects are plain dicts in one store with one growing resource version, so list, get, watch, bookmarks and 410 Gone
behave as the real server's do (https://kubernetes.io/docs/reference/using-api/api-concepts/). TrainJobs are checked as
strictly as the CRD checks them, and get what the real server adds. A scenario, run in a thread for every TrainJob,
plays Kubeflow Trainer, the scheduler and kubelet. Faults are put in front of calls.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1ClusterTrainingRuntime, TrainerV1alpha1TrainJob
from support.clock import HandClock

from ocrmem.cluster.permissions import PERMISSIONS

Object = dict[str, Any]
TOKEN = "the-token-of-the-test-cluster"
NAMESPACE = "ocrmem"
_PATIENCE = float(os.environ.get("OCRMEM_TEST_PATIENCE", "300"))  # s for an event that must come
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
        self.named_rights = False  # whether the rights are those of the Role: some for one name alone
        self.denied = ""  # why admission refuses every TrainJob
        self.unknown_fields: set[str] = set()  # of the CRDs, for a version that lacks them: TrainJob.spec.x
        self.start_up: list[int] = []  # statuses of the next answers, while the server starts
        self.token = TOKEN
        self.finalizers_hang = False
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

    def allows(self, verb: str, resource: str, name: str) -> bool:
        if (verb, resource) in self.forbidden:
            return False
        only = [row.only for row in PERMISSIONS if row.name == resource and row.only]
        return not (self.named_rights and only and verb == "get" and name not in only[0])

    def restart(self, *statuses: int) -> None:
        """End all connections, and answer the next calls with these."""
        with self.changed:
            self.start_up = list(statuses)
        self.drop_connections()

    def event(self, kind: str, name: str, reason: str, message: str, when: str | None = None) -> None:
        """As the API server shows an event of events.k8s.io in the core group: lastTimestamp is empty."""
        self._uid += 1
        event = {
            "metadata": {"name": f"{name}.{self._uid}"},
            "involvedObject": {"kind": kind, "name": name},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "eventTime": (when or now()).replace("Z", ".000000Z"),
            "lastTimestamp": None,
            "reportingComponent": "default-scheduler",
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

    def wait(self, holds: Callable[[], bool], seconds: float = _PATIENCE) -> None:
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

    def delete_job(self, job: str) -> Object:
        """As DELETE in the foreground does: the object stays, marked, until its finalizers are done."""
        with self.changed:
            thing = self.objects["trainjobs", job]
            thing["metadata"] |= {"deletionTimestamp": now(), "finalizers": ["foregroundDeletion"]}
            made = self.put("trainjobs", thing)
        threading.Thread(target=self._finalize, args=(job, made["metadata"]["uid"]), daemon=True).start()
        return made

    def _finalize(self, job: str, uid: str) -> None:
        with self.changed:
            while self.finalizers_hang and not self.stopped:
                self.changed.wait(1)
            if self.objects.get(("trainjobs", job), {}).get("metadata", {}).get("uid") == uid:
                self.remove_job(job)

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
        rights = [call for call in self.calls if not call.resource.startswith("/")]
        return {(call.group, call.resource, call.verb) for call in rights}

    def start_scenario(self, job: str) -> None:
        def play() -> None:
            try:
                self.scenario(self, job)
            except BaseException as error:
                self.scenario_errors.append(error)
                self.clock.runs = True
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


def forbidden(call: Call) -> str:
    """As the RBAC authorizer refuses a call."""
    kind = f"{call.resource.partition('/')[0]}.{call.group}".rstrip(".")
    return (
        f'{kind} "{call.name}" is forbidden: User "system:serviceaccount:ocrmem:ocrmem" cannot {call.verb} resource '
        f'"{call.resource}" in API group "{call.group}" in the namespace "{call.namespace}"'
    )


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

    warnings: Sequence[str] = ()  # of the answer that is being made

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
            if self.headers.get("Authorization") != f"Bearer {cluster.token}":
                raise _Refused(401, "Unauthorized")
            if cluster.start_up:
                return self._starting(call, cluster.start_up.pop(0))
            if fault and fault.cut is None and not fault.after:
                return self._fail(fault)
            if call.resource.startswith("/"):
                kinds = [TrainerV1alpha1TrainJob, TrainerV1alpha1ClusterTrainingRuntime]
                return self._send(200, served_schemas(kinds, cluster.unknown_fields))
            if not cluster.allows(call.verb, call.resource, call.name):
                raise _Refused(403, forbidden(call))
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

    def _starting(self, call: Call, status: int) -> None:
        """A server that starts: its roles are not loaded (403), then it is not ready (503), then overloaded (429)."""
        message = forbidden(call) + ': RBAC: role.rbac.authorization.k8s.io "ocrmem" not found'
        self._send(status, _status(status, message if status == 403 else "the server is starting"))

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
            return cluster.delete_job(call.name)
        return cluster.get(plural, call.name)

    def _create(self, call: Call) -> Object:
        cluster, body = self.cluster, call.body or {}
        if call.resource == "selfsubjectaccessreviews":
            asked = body["spec"]["resourceAttributes"]
            resource = asked["resource"] + (f"/{asked['subresource']}" if asked.get("subresource") else "")
            return {**body, "status": {"allowed": cluster.allows(asked["verb"], resource, asked.get("name", ""))}}
        body = copy.deepcopy(body)
        lacking = [dotted.split(".")[1:] for dotted in cluster.unknown_fields if dotted.startswith("TrainJob.")]
        texts = [f'unknown field "{name}"' for field in lacking for name in _prune(body, field)]
        if texts and call.query.get("fieldValidation") == "Strict":
            handled = 'TrainJob in version "v1alpha1" cannot be handled as a TrainJob: strict decoding error: '
            raise _Refused(400, handled + ", ".join(texts))
        self.warnings = texts
        check_train_job(body)
        if cluster.denied:
            raise _Refused(403, cluster.denied)
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
        if "nodeName" not in pod["spec"]:
            self._send(204, None)
            return
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

    def _send(self, status: int, value: Object | None, headers: dict[str, str] | None = None) -> None:
        raw = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        for text in self.warnings:
            self.send_header("Warning", f"299 - {json.dumps(text)}")
        self.warnings = ()
        self.end_headers()
        self.wfile.write(raw)
        self.wfile.flush()


def check_train_job(body: Object) -> None:
    """As the CRD's schema and Trainer's webhook: every field is known and of its type, managers are prefixed."""
    try:
        known = TrainerV1alpha1TrainJob.from_dict(body)
    except ValueError as error:
        raise _Refused(422, f"TrainJob is invalid: {error}") from None
    if known is None or known.to_dict() != body:
        raise _Refused(400, "strict decoding error: unknown field")
    for index, patch in enumerate(body["spec"].get("runtimePatches", [])):
        if not is_domain_prefixed_path(patch["manager"]):
            place = f"spec.runtimePatches[{index}].manager: Invalid value: {json.dumps(patch['manager'])}"
            webhook = 'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request'
            raise _Refused(403, f'{webhook}: {place}: must be a domain-prefixed path (such as "acme.io/foo")')


def is_domain_prefixed_path(text: str) -> bool:
    """k8s.io/apimachinery/pkg/util/validation.IsDomainPrefixedPath: a DNS subdomain, a slash, a path of a URL."""
    host, slash, path = text.partition("/")
    label = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    valid_host = len(host) <= 253 and re.fullmatch(rf"{label}(\.{label})*", host)
    return bool(slash and path and valid_host and re.fullmatch(r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", path))


@functools.cache
def _schemas_of(model: Any) -> str:
    return json.dumps(model.model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}"))


def served_schemas(kinds: list[Any], unknown: set[str]) -> Object:
    """The OpenAPI document of an API group, from the models that Kubeflow generates from its CRDs.

    Args:
        unknown: dotted fields that this cluster's version lacks, the kind first: ``TrainJob.spec.runtimePatches``.
    """
    schemas: Object = {}
    for model in kinds:
        schema = json.loads(_schemas_of(model))
        kind = model.__name__.removeprefix("TrainerV1alpha1")
        schemas |= schema.pop("$defs", {})
        gvk = {"group": "trainer.kubeflow.org", "kind": kind, "version": "v1alpha1"}
        schemas[f"org.kubeflow.trainer.v1alpha1.{kind}"] = {**schema, "x-kubernetes-group-version-kind": [gvk]}
    for dotted in unknown:
        kind, *parents, last = dotted.split(".")
        place = schemas[f"org.kubeflow.trainer.v1alpha1.{kind}"]
        for name in parents:
            place = _below(schemas, place["properties"][name])
        place["properties"].pop(last)
    return {"openapi": "3.0.0", "components": {"schemas": schemas}}


def _below(schemas: Object, schema: Object) -> Object:
    """The schema of a field, or of the items of a list, behind references."""
    for _ in range(6):
        entries = [one for one in schema.get("anyOf", []) if one.get("type") != "null"]
        schema = entries[0] if entries else schema.get("items", schema)
        schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return schema


def _prune(body: Any, unknown: list[str], place: str = "") -> list[str]:
    """Remove a dotted field; returns where it was, with the indices of lists."""
    if isinstance(body, list):
        return [name for index, item in enumerate(body) for name in _prune(item, unknown, f"{place}[{index}]")]
    first, *rest = unknown
    if not isinstance(body, dict) or first not in body:
        return []
    where = f"{place}.{first}".lstrip(".")
    if rest:
        return _prune(body[first], rest, where)
    del body[first]
    return [where]


def _defaulted(body: Object) -> Object:
    """What the real server, its webhooks and Kueue add to a job."""
    job = copy.deepcopy(body)
    job["spec"] |= {"managedBy": "trainer.kubeflow.org/trainjob-controller", "suspend": False}
    for patch in job["spec"].setdefault("runtimePatches", []):
        patch["time"] = now()
    job["spec"]["runtimePatches"].insert(0, {"manager": "kueue.x-k8s.io/manager", "time": now()})
    job["metadata"]["managedFields"] = [{"manager": "OpenAPI-Generator", "operation": "Update"}]
    return job


def _parse(method: str, path: str, body: Object | None) -> Call:
    parts = urlsplit(path)
    if parts.path.startswith("/openapi"):
        return Call("get", parts.path, "", "", "", {}, body)
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
