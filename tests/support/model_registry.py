"""A Kubeflow Model Registry on loopback: the REST calls that its Python client makes, and a memory of them.

Request bodies are read by the client's own OpenAPI models, and a field that they do not know is refused, so a
misspelt property fails a test. Answers have the shapes and statuses of the real server: 201 for what was made,
404 for what is not found, 409 for a name that is taken; lists come in pages.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.serving import serving

API = "/api/model_registry/v1"
Objects = dict[str, dict[str, Any]]


class ModelRegistryServer:
    """What the registry was told, and how it is to answer.

    Attributes:
        models, versions, artifacts: by id, as JSON.
        calls: method and path of every request.
        token: the bearer token it asks for; None: none.
        broken: called with method and path before a request is answered; a status instead of None is the answer.
        page_size: of lists.
        late: so many lists of versions lack the newest one; with ``late_by_itself``, so do questions for it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.models: Objects = {}
        self.versions: Objects = {}
        self.artifacts: Objects = {}
        self.calls: list[tuple[str, str]] = []
        self.token: str | None = None
        self.broken: Callable[[str, str], int | None] = lambda method, path: None
        self.page_size = 2
        self.late = 0
        self.late_by_itself = False
        self._ids = iter(range(1, 1000))
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        return f"kubeflow+{self.url}"

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [call for call in self.calls if call[0] != "GET"]

    def property_of(self, kind: Objects, name: str, key: str) -> Any:
        """A custom property by its plain value."""
        (found,) = [item for item in kind.values() if item["name"] == name]
        value = found["customProperties"][key]
        return value[f"{value['metadataType'].removeprefix('Metadata').removesuffix('Value').lower()}_value"]

    def answer(self, method: str, target: str, body: Any, token: str | None) -> tuple[int, Any]:
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        with self._lock:
            self.calls.append((method, parts.path.removeprefix(API)))
            if self.token is not None and token != f"Bearer {self.token}":
                return (401 if token is None else 403), {"code": "", "message": "no"}
            if status := self.broken(method, parts.path.removeprefix(API)):
                return status, {"code": str(status), "message": "broken on purpose"}
            for wanted, pattern, handle in self._routes():
                if method == wanted and (match := re.fullmatch(API + pattern, parts.path)):
                    return handle(*match.groups(), query=query, body=body)
        return 404, {"code": "404", "message": f"no {method} {parts.path}"}

    def _routes(self) -> list[tuple[str, str, Callable[..., tuple[int, Any]]]]:
        models, versions, artifacts = self.models, self.versions, self.artifacts
        return [
            ("GET", "/registered_models", lambda query, body: self._list(models, query)),
            ("POST", "/registered_models", lambda query, body: self._create(models, "RegisteredModelCreate", body)),
            ("GET", "/registered_model", lambda query, body: self._find(models, query)),
            ("PATCH", r"/registered_models/(\d+)",
             lambda key, query, body: self._update(models, key, "RegisteredModelUpdate", body)),
            ("GET", r"/registered_models/(\d+)/versions",
             lambda key, query, body: self._list(self._shown_versions(), query, registeredModelId=key)),
            ("POST", "/model_versions", lambda query, body: self._create(versions, "ModelVersionCreate", body)),
            ("GET", "/model_version",
             lambda query, body: self._find(
                 self._shown_versions() if self.late_by_itself else versions,
                 query, registeredModelId=query.get("parentResourceId"))),
            ("PATCH", r"/model_versions/(\d+)",
             lambda key, query, body: self._update(versions, key, "ModelVersionUpdate", body)),
            ("POST", r"/model_versions/(\d+)/artifacts",
             lambda key, query, body: self._create(artifacts, "ModelArtifact", body, versionId=key)),
            ("GET", "/model_artifact",
             lambda query, body: self._find(artifacts, query, versionId=query.get("parentResourceId"))),
        ]  # fmt: skip

    def _shown_versions(self) -> Objects:
        if self.late == 0:
            return self.versions
        self.late -= 1
        return dict(list(self.versions.items())[:-1])

    def _create(self, kind: Objects, model: str, body: Any, **parent: str) -> tuple[int, Any]:
        if problem := _misfit(model, body):
            return 400, {"code": "400", "message": problem}
        made = {**body, **parent}
        owner = made.get("registeredModelId", made.get("versionId"))
        for other in kind.values():
            if other["name"] == made["name"] and other.get("registeredModelId", other.get("versionId")) == owner:
                return 409, {"code": "409", "message": f"{made['name']} exists already"}
        made |= {"id": str(next(self._ids)), "createTimeSinceEpoch": "1", "lastUpdateTimeSinceEpoch": "1"}
        kind[made["id"]] = made
        return 201, _shown(made)

    def _update(self, kind: Objects, key: str, model: str, body: Any) -> tuple[int, Any]:
        if key not in kind:
            return 404, {"code": "404", "message": "not found"}
        if problem := _misfit(model, body):
            return 400, {"code": "400", "message": problem}
        kind[key].update(body)  # customProperties are replaced as a whole: who forgets one has lost it
        return 200, _shown(kind[key])

    def _find(self, kind: Objects, query: dict[str, str], **parent: str | None) -> tuple[int, Any]:
        for item in kind.values():
            if item["name"] == query["name"] and all(item.get(key) == value for key, value in parent.items()):
                return 200, _shown(item)
        return 404, {"code": "404", "message": "not found"}

    def _list(self, kind: Objects, query: dict[str, str], **parent: str) -> tuple[int, Any]:
        items = [item for item in kind.values() if all(item.get(key) == value for key, value in parent.items())]
        size = min(int(query.get("pageSize", self.page_size)), self.page_size)
        start = int(query.get("nextPageToken") or 0)
        following = str(start + size) if start + size < len(items) else ""
        page = [_shown(item) for item in items[start : start + size]]
        return 200, {"items": page, "size": len(page), "pageSize": size, "nextPageToken": following}


@contextmanager
def model_registry(prefix: str = "") -> Iterator[ModelRegistryServer]:
    """The server on a free port of loopback, below a path if one is given."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            inside = self.path.startswith(prefix + "/")
            status, answer = (
                state.answer(self.command, self.path.removeprefix(prefix), body, self.headers.get("Authorization"))
                if inside
                else (404, {})
            )
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = respond

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as url:
        state = ModelRegistryServer(f"{url}{prefix}")
        yield state


def _shown(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != "versionId"}


def _misfit(model: str, body: Any) -> str | None:
    """Why a request is not what the API's schema says, or None."""
    import mr_openapi
    from pydantic import ValidationError

    try:
        read = getattr(mr_openapi, model).from_dict(body)
    except (ValidationError, ValueError) as error:
        return str(error)
    known = {**read.model_dump(by_alias=True), "artifactType": None}
    lost = set(body) - set(known)
    return f"unknown fields {sorted(lost)}" if lost else None
