"""List the objects of one kind and watch them: every change goes into a queue, none twice, none lost.

The protocol is https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes: a list
gives a resource version, a watch resumes from it; when the server has forgotten that version (410 Gone) the list is
made again. Bookmarks keep the version young while nothing changes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from queue import Queue
from typing import Any

from ocrmem.cluster.api import Api, ApiError
from ocrmem.cluster.permissions import Resource
from ocrmem.errors import OcrMemError

Object = dict[str, Any]
_GONE = 410


@dataclass(frozen=True)
class Listed:
    """All objects as they are now; what was known before and is not here is gone."""

    resource: Resource
    items: list[Object]


@dataclass(frozen=True)
class Changed:
    """One object as it is now."""

    resource: Resource
    object: Object
    deleted: bool


@dataclass(frozen=True)
class Lost:
    """A thread has given up, for this reason."""

    error: OcrMemError


class Watcher(threading.Thread):
    """Put a `Listed` and then `Changed` after `Changed` into `updates`; `Lost` when it must give up."""

    def __init__(
        self, api: Api, resource: Resource, query: dict[str, Any], updates: Queue[Any], stop: threading.Event
    ) -> None:
        super().__init__(name=f"watch {resource.plural}", daemon=True)
        self._api = api
        self._resource = resource
        self._query = query
        self._updates = updates
        self._stop_asked = stop
        self._version: str | None = None
        self._retry = api.retry(f"Kubernetes API, watch {resource.plural}", stop)

    def run(self) -> None:
        while not self._stop_asked.is_set():
            try:
                if self._version is None:
                    self._list()
                self._watch()
            except ApiError as error:
                if error.idle:
                    continue
                verb = "watch" if self._version else "list"
                if error.status == _GONE:  # the usual fate of a quiet watch
                    self._version = None
                    goes_on = self._retry.wait(None, error.retry_after)
                else:
                    goes_on = self._api.passes(error, self._resource, verb, self._retry)
                if not goes_on:
                    if not self._stop_asked.is_set():
                        self._updates.put(Lost(self._api.explained(error, self._resource, verb)))
                    return

    def _list(self) -> None:
        answer = self._api.call(self._resource, "list", query=self._query)
        self._updates.put(Listed(self._resource, answer["items"]))
        self._version = answer["metadata"]["resourceVersion"]

    def _watch(self) -> None:
        pauses = self._api.pauses
        begun = pauses.clock.now()
        for change in self._api.watch(self._resource, self._query, self._version or ""):
            if self._stop_asked.is_set():
                return
            self._version = change["object"]["metadata"]["resourceVersion"]
            self._retry.succeeded()
            if change["type"] != "BOOKMARK":
                self._updates.put(Changed(self._resource, change["object"], change["type"] == "DELETED"))
        self._retry.succeeded()
        if pauses.clock.now() - begun < pauses.first:
            pauses.clock.wait(pauses.first, self._stop_asked)  # a server that ends every watch at once is not pressed
