"""Kubeflow Pipelines' API as far as `kfp run create` and `ocrmem pipeline submit` use it, on loopback.

Five calls: healthz, experiments (list, create), runs (create, get). A run whose specification does not parse strictly,
or whose parameters are unknown or of another type, is refused with 400 as the real server does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

API = "/apis/v2beta1"
_NOW = "2026-01-01T00:00:00Z"
_KINDS = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": float, "BOOLEAN": bool, "LIST": list, "STRUCT": dict}


class Server(ThreadingHTTPServer):
    """What was asked and what was made."""

    def __init__(self, states: list[str], token: str | None, failures: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.states = states
        self.token = token
        self.failures = failures
        self.calls: list[str] = []
        self.experiments: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def kfp_server(*states: str, token: str | None = None, failures: tuple[int, ...] = ()) -> Iterator[Server]:
    """A server until the block ends.

    Args:
        states: what each look at a run finds; the last one stays.
        token: the bearer token that every call must carry.
        failures: status codes of the next looks at a run, before it answers again.
    """
    server = Server(list(states) or ["SUCCEEDED"], token, list(failures))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def specification_faults(documents: dict[str, Any]) -> list[str]:
    """What the strict parsers of Kubeflow Pipelines and kfp-kubernetes say of a compiled pipeline."""
    faults = []
    try:
        json_format.ParseDict(documents["pipeline_spec"], pipeline_spec_pb2.PipelineSpec())
        platform = documents.get("platform_spec", {})
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
        for platforms in platform.get("platforms", {}).values():
            for executor in platforms["deploymentSpec"]["executors"].values():
                json_format.ParseDict(executor, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    except (json_format.ParseError, KeyError) as error:
        faults.append(str(error))
    return faults


def _parameter_faults(specification: dict[str, Any], given: dict[str, Any]) -> list[str]:
    declared = specification["root"]["inputDefinitions"]["parameters"]
    faults = [f"unknown parameter {name}" for name in given if name not in declared]
    for name, value in given.items():
        kind = declared.get(name, {}).get("parameterType")
        if kind and type(value) is not _KINDS[kind]:
            faults.append(f"input parameter {name} requires type {kind}")
    return faults


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        self.server.calls.append(f"GET {path.path}")
        if not self._allowed():
            return
        if path.path == f"{API}/healthz":
            self._answer(200, {"multi_user": False})
        elif path.path == f"{API}/experiments":
            wanted = parse_qs(path.query).get("filter", [""])[0]
            found = [e for e in self.server.experiments if f'"{e["display_name"]}"' in wanted]
            self._answer(200, {"experiments": found, "total_size": len(found)})
        elif path.path.startswith(f"{API}/runs/"):
            if self.server.failures:
                self._answer(self.server.failures.pop(0), {"message": "away for a moment"})
                return
            run = next(run for run in self.server.runs if path.path.endswith(run["run_id"]))
            state = self.server.states.pop(0) if len(self.server.states) > 1 else self.server.states[0]
            error = {"code": 2, "message": "task train-adapter failed"} if state == "FAILED" else None
            self._answer(200, {**run, "state": state, **({"error": error} if error else {})})
        else:
            self._answer(404, {"message": f"no such call: {path.path}"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = urlsplit(self.path).path
        self.server.calls.append(f"POST {path}")
        if not self._allowed():
            return
        if path == f"{API}/experiments":
            made = {"experiment_id": f"e{len(self.server.experiments) + 1}", **body, "created_at": _NOW}
            self.server.experiments.append(made)
            self._answer(200, made)
        elif path == f"{API}/runs":
            specification = body["pipeline_spec"]
            if "pipeline_spec" not in specification:  # a pipeline without settings for Kubernetes
                specification = {"pipeline_spec": specification}
            given = body.get("runtime_config", {}).get("parameters", {})
            faults = specification_faults(specification)
            faults = faults or _parameter_faults(specification["pipeline_spec"], given)
            if faults:
                self._answer(400, {"message": "; ".join(faults)})
                return
            made = {"run_id": f"r{len(self.server.runs) + 1}", "state": "PENDING", "created_at": _NOW, **body}
            self.server.runs.append(made)
            self._answer(200, made)
        else:
            self._answer(404, {"message": f"no such call: {path}"})

    def _allowed(self) -> bool:
        if self.server.token is None or self.headers.get("Authorization") == f"Bearer {self.server.token}":
            return True
        self._answer(401, {"message": "unauthenticated"})
        return False

    def _answer(self, code: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass
