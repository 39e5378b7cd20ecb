"""The fake cluster behaves as real ones do: each behaviour with where it was seen.

`kube-apiserver` and the like are runs against the real program (kube-apiserver 1.36, kube-controller-manager,
JobSet's controller with its webhooks, etcd 3.5); `Trainer's source` was read (v2.2.0 to v2.3.0) and its validation
executed; a URL is the documentation that says so.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from support.kubernetes_api import TOKEN, FakeCluster
from support.scenarios import start

from ocrmem.cluster.manifest import train_job
from ocrmem.config import RunConfig

Settings = Callable[..., RunConfig]
Job = dict[str, Any]
JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/ocrmem/trainjobs"
PODS = "/api/v1/namespaces/ocrmem/pods"
PATCHES = "TrainJob.spec.runtimePatches"
CONCEPTS = "https://kubernetes.io/docs/reference/using-api/api-concepts"


class Answer:
    """A raw answer of the server."""

    def __init__(self, cluster: FakeCluster, path: str, body: Job | None = None, method: str | None = None) -> None:
        request = urllib.request.Request(cluster.url + path, json.dumps(body).encode() if body else None)
        request.method = method or ("POST" if body else "GET")
        request.add_header("Authorization", f"Bearer {TOKEN}")
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                self.status, self.headers, self.text = response.status, response.headers, response.read().decode()
        except urllib.error.HTTPError as error:
            self.status, self.headers, self.text = error.code, error.headers, error.read().decode()

    @property
    def value(self) -> Any:
        return json.loads(self.text)


def prunes_with_a_warning(cluster: FakeCluster, job: Job) -> None:
    cluster.unknown_fields = {PATCHES}
    answer = Answer(cluster, JOBS, job)
    assert answer.status == 201
    assert [patch["manager"] for patch in answer.value["spec"]["runtimePatches"]] == ["kueue.x-k8s.io/manager"]
    assert answer.headers["Warning"] == '299 - "unknown field \\"spec.runtimePatches\\""'


def refuses_when_strict(cluster: FakeCluster, job: Job) -> None:
    cluster.unknown_fields = {PATCHES}
    answer = Answer(cluster, f"{JOBS}?fieldValidation=Strict", job)
    assert answer.status == 400
    assert 'strict decoding error: unknown field "spec.runtimePatches"' in answer.value["message"]


def refuses_a_manager_without_a_domain(cluster: FakeCluster, job: Job) -> None:
    job["spec"]["runtimePatches"][0]["manager"] = "ocrmem"
    answer = Answer(cluster, JOBS, job)
    assert answer.status == 403
    assert "denied the request: spec.runtimePatches[0].manager: Invalid value" in answer.value["message"]


def starts_with_403_503_429(cluster: FakeCluster, job: Job) -> None:
    cluster.start_up = [403, 503, 429]
    answers = [Answer(cluster, PODS) for _ in range(4)]
    assert [answer.status for answer in answers] == [403, 503, 429, 200]
    assert 'cannot list resource "pods"' in answers[0].value["message"]


def has_no_log_of_an_unscheduled_pod(cluster: FakeCluster, job: Job) -> None:
    pod = cluster.add_pod("one")
    answer = Answer(cluster, f"{PODS}/{pod}/log?container=node")
    assert (answer.status, answer.text) == (204, "")


def has_no_log_of_a_pod_that_starts(cluster: FakeCluster, job: Job) -> None:
    pod = cluster.add_pod("one", node="gpu-1")
    assert Answer(cluster, f"{PODS}/{pod}/log?container=node").status == 400


def deletes_when_finalizers_are_done(cluster: FakeCluster, job: Job) -> None:
    cluster.finalizers_hang = True
    Answer(cluster, JOBS, job)
    deleted = Answer(cluster, f"{JOBS}/one", {"propagationPolicy": "Foreground"}, "DELETE")
    assert (deleted.status, deleted.value["metadata"]["finalizers"]) == (200, ["foregroundDeletion"])
    assert Answer(cluster, f"{JOBS}/one").value["metadata"]["deletionTimestamp"]
    cluster.finalizers_hang = False
    with cluster.changed:
        cluster.changed.notify_all()
    cluster.wait(lambda: cluster.names("trainjobs") == [])
    assert Answer(cluster, f"{JOBS}/one").status == 404


def shows_new_events_without_last_timestamp(cluster: FakeCluster, job: Job) -> None:
    cluster.event("Pod", "p", "FailedScheduling", "no node")
    [event] = Answer(cluster, "/api/v1/namespaces/ocrmem/events").value["items"]
    assert event["lastTimestamp"] is None
    assert event["eventTime"].endswith("Z")


def grants_some_rights_for_one_name(cluster: FakeCluster, job: Job) -> None:
    cluster.named_rights = True
    secrets = "/api/v1/namespaces/ocrmem/secrets"
    assert Answer(cluster, f"{secrets}/ocrmem-secrets").status == 200
    assert Answer(cluster, f"{secrets}/registry").status == 403


def serves_its_schemas(cluster: FakeCluster, job: Job) -> None:
    answer = Answer(cluster, "/openapi/v3/apis/trainer.kubeflow.org/v1alpha1").value
    kinds = [one.get("x-kubernetes-group-version-kind") for one in answer["components"]["schemas"].values()]
    assert {entry[0]["kind"] for entry in kinds if entry} == {"TrainJob", "ClusterTrainingRuntime"}


def adds_to_a_job(cluster: FakeCluster, job: Job) -> None:
    Answer(cluster, JOBS, job)
    made = Answer(cluster, f"{JOBS}/one").value
    assert made["spec"]["runtimePatches"][0]["manager"] == "kueue.x-k8s.io/manager"
    assert made["spec"]["suspend"] is False


def forgets_old_versions(cluster: FakeCluster, job: Job) -> None:
    start(cluster, "one")
    cluster.forget()
    answer = Answer(cluster, f"{PODS}?watch=true&resourceVersion=1&timeoutSeconds=1")
    assert json.loads(answer.text.splitlines()[0])["object"]["code"] == 410


def ends_a_watch_with_a_bookmark(cluster: FakeCluster, job: Job) -> None:
    answer = Answer(cluster, f"{PODS}?watch=true&resourceVersion=999&timeoutSeconds=1")
    assert json.loads(answer.text.splitlines()[-1])["type"] == "BOOKMARK"


def creates_a_name_once(cluster: FakeCluster, job: Job) -> None:
    assert [Answer(cluster, JOBS, job).status for _ in range(2)] == [201, 409]


CONFORMANCE = [
    ("an unknown field is dropped, with 201 and a Warning", "kube-apiserver 1.36", prunes_with_a_warning),
    ("an unknown field is refused where fieldValidation=Strict", "kube-apiserver 1.36", refuses_when_strict),
    ("a manager must be a domain-prefixed path", "Trainer's source", refuses_a_manager_without_a_domain),
    ("a starting server answers 403, 503, 429, then well", "kube-apiserver 1.36", starts_with_403_503_429),
    ("the log of an unscheduled pod is 204, empty", "kube-apiserver 1.36", has_no_log_of_an_unscheduled_pod),
    ("the log of a pod that starts is 400", "kube-apiserver 1.36", has_no_log_of_a_pod_that_starts),
    ("a deleted object stays until its finalizers are done", "kube-apiserver 1.36", deletes_when_finalizers_are_done),
    ("events have eventTime and no lastTimestamp", "kube-apiserver 1.36", shows_new_events_without_last_timestamp),
    ("a Role can grant get for one name alone", "kube-apiserver 1.36 (RBAC)", grants_some_rights_for_one_name),
    ("every account may read /openapi/v3", "kube-apiserver 1.36", serves_its_schemas),
    ("Trainer and Kueue add defaults and a patch of theirs", "Trainer's source; Kueue's docs", adds_to_a_job),
    ("a watch from a forgotten version gets 410", f"kube-apiserver 1.36, {CONCEPTS}", forgets_old_versions),
    ("a watch ends with a bookmark", CONCEPTS, ends_a_watch_with_a_bookmark),
    ("a second object of a name gets 409", "kube-apiserver 1.36", creates_a_name_once),
]


@pytest.mark.parametrize(("seen", "behaves"), [case[1:] for case in CONFORMANCE], ids=[case[0] for case in CONFORMANCE])
def test_the_fake_behaves_as_what_was_seen(
    cluster: FakeCluster, settings: Settings, seen: str, behaves: Callable[[FakeCluster, Job], None]
) -> None:
    assert seen
    behaves(cluster, train_job(settings(), "one"))
