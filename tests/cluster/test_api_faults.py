"""An API server that refuses, fails, breaks off and forgets: what is survived, and what is told."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.kubernetes_api import TOKEN, FakeCluster, Fault
from support.scenarios import complete, start, success

from ocrmem.cluster.api import Api
from ocrmem.cluster.pauses import Pauses
from ocrmem.cluster.trainjob import train_on_cluster
from ocrmem.errors import ClusterError

Launch = Callable[..., dict[str, Any]]

SURVIVED = [
    ("create answers 500", [Fault("create", "trainjobs", 500, 2)]),
    ("create answers 503", [Fault("create", "trainjobs", 503, 1)]),
    ("create breaks off", [Fault("create", "trainjobs", 0, 1)]),
    ("create happens and its answer is lost", [Fault("create", "trainjobs", 0, 1, after=True)]),
    ("lists answer 500", [Fault("list", kind, 500, 2) for kind in ("trainjobs", "pods", "events")]),
    ("watches answer 500", [Fault("watch", kind, 500, 2) for kind in ("trainjobs", "pods", "events")]),
    ("watches break off", [Fault("watch", kind, 0, 2) for kind in ("trainjobs", "pods", "events")]),
    ("watches break in a line", [Fault("watch", kind, times=2, cut=40) for kind in ("trainjobs", "pods")]),
    ("watches answer 410", [Fault("watch", kind, 410, 2) for kind in ("trainjobs", "pods", "events")]),
    ("the log answers 500", [Fault("get", "pods/log", 500, 2)]),
    ("the log breaks off", [Fault("get", "pods/log", 0, 2)]),
    ("the log breaks in its first line", [Fault("get", "pods/log", times=1, cut=33)]),
    ("the log breaks in its second line", [Fault("get", "pods/log", times=2, cut=60)]),
]


@pytest.mark.parametrize("faults", [case[1] for case in SURVIVED], ids=[case[0] for case in SURVIVED])
def test_a_run_survives(
    cluster: FakeCluster, launch: Launch, faults: list[Fault], capsys: pytest.CaptureFixture[str]
) -> None:
    def after_the_faults(cluster: FakeCluster, job: str) -> None:
        pods = start(cluster, job)
        cluster.log(pods[0], "step 1 loss 2.5", "step 2 loss 1.5")
        cluster.wait(lambda: all(fault.times == 0 for fault in faults))
        cluster.log(pods[0], "step 3 loss 0.5")
        complete(cluster, job, pods)

    cluster.scenario = after_the_faults
    cluster.faults = faults
    assert launch()["state"] == "complete"
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
    assert lines == ["step 1 loss 2.5", "step 2 loss 1.5", "step 3 loss 0.5"]
    assert cluster.names("trainjobs") == ["one"]


def test_a_server_that_asks_to_wait_is_not_pressed(cluster: FakeCluster, launch: Launch) -> None:
    cluster.scenario = success
    cluster.faults = [Fault("create", "trainjobs", 429, 1, {"Retry-After": "17"})]
    assert launch()["state"] == "complete"
    assert 17 in cluster.clock.waits


def test_a_watch_whose_version_is_forgotten_lists_again_and_goes_on(
    cluster: FakeCluster, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forgetful(cluster: FakeCluster, job: str) -> None:
        pods = start(cluster, job)
        for number in range(4):
            cluster.log(pods[0], f"step {number}")
            cluster.wait_for_call("list", "pods", number + 1)
            cluster.wait_for_call("watch", "pods", number + 1)
            cluster.put("pods", {"metadata": {"name": f"other-{number}"}})  # the version moves on without us
            cluster.forget()
        complete(cluster, job, pods)
        cluster.forget()

    cluster.scenario = forgetful
    assert launch()["state"] == "complete"
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("step")] == [f"step {number}" for number in range(4)]
    assert sum("running on" in line for line in lines) == 1


def test_a_pod_that_vanished_while_the_watch_was_away_is_noticed(cluster: FakeCluster, launch: Launch) -> None:
    def replaced_unseen(cluster: FakeCluster, job: str) -> None:
        (old,) = start(cluster, job)
        cluster.wait_for_call("watch", "pods")
        cluster.remove("pods", old)
        cluster.forget()
        (new,) = start(cluster, job, suffix="bbbbb")
        complete(cluster, job, [new])

    cluster.scenario = replaced_unseen
    assert [pod["name"] for pod in launch()["pods"]] == ["one-node-0-0-bbbbb"]


def test_lines_that_share_a_stamp_are_neither_lost_nor_repeated(
    cluster: FakeCluster, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    def in_one_tick(cluster: FakeCluster, job: str) -> None:
        (pod,) = start(cluster, job)
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 5))
        # Servers drop trailing zeros of the fraction, so stamps differ in length.
        cluster.log(pod, "step 1", stamp=f"{second}Z")
        cluster.log(pod, "step 2", "step 2", "step 3", stamp=f"{second}.1Z")
        cluster.log(pod, "step 4", stamp=f"{second}.12Z")
        cluster.wait(lambda: all(fault.times == 0 for fault in cluster.faults))
        complete(cluster, job, [pod])

    cluster.scenario = in_one_tick
    cluster.faults = [Fault("get", "pods/log", cut=size) for size in (30, 60, 90, 120)]
    launch()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
    assert lines == ["step 1", "step 2", "step 2", "step 3", "step 4"]


def test_a_long_silence_is_no_fault(
    cluster: FakeCluster, settings: Callable[..., Any], pauses: Pauses, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training that logs nothing for longer than the connections live, and than outages are survived."""

    def silent(cluster: FakeCluster, job: str) -> None:
        pods = start(cluster, job)
        cluster.log(pods[0], "step 1")
        for verb, resource in (("get", "pods/log"), ("watch", "pods"), ("watch", "trainjobs")):
            cluster.wait_for_call(verb, resource, times=4)
        cluster.clock.advance_and_be_seen(10)
        cluster.log(pods[0], "step 2")
        complete(cluster, job, pods)

    cluster.scenario = silent
    restless = replace(pauses, silence=0.2)
    assert train_on_cluster(settings(api_timeout_seconds=1), run_name="one", pauses=restless)["state"] == "complete"
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("step")] == ["step 1", "step 2"]
    assert not [line for line in lines if "trying again" in line]


REFUSED = [
    ("create", "trainjobs", "trainer.kubeflow.org"),
    ("get", "trainjobs", "trainer.kubeflow.org"),
    ("watch", "trainjobs", "trainer.kubeflow.org"),
    ("list", "pods", ""),
    ("watch", "pods", ""),
    ("list", "events", ""),
]


@pytest.mark.parametrize(("verb", "resource", "group"), REFUSED)
def test_a_refused_call_names_the_right_and_the_role_that_grants_it(
    cluster: FakeCluster, launch: Launch, verb: str, resource: str, group: str
) -> None:
    cluster.forbidden = {(verb, resource)}
    with pytest.raises(ClusterError) as caught:
        launch()
    text = str(caught.value)
    assert f"refuses {verb} on {resource}" in text
    assert "in namespace ocrmem" in text
    assert "k8s/base/rbac.yaml" in text
    assert "Role" in text
    assert f'of API group "{group}"' in text if group else "of API group" not in text
    assert TOKEN not in text


def test_a_log_that_may_not_be_read_is_told_and_the_run_goes_on(
    cluster: FakeCluster, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.forbidden = {("get", "pods/log")}
    cluster.scenario = success
    assert launch()["state"] == "complete"
    assert "refuses get on pods/log" in capsys.readouterr().err


def test_a_runtime_that_is_not_there_is_named_by_the_server(cluster: FakeCluster, launch: Launch) -> None:
    with pytest.raises(ClusterError, match=r"ClusterTrainingRuntime other not found"):
        launch(runtime="other")


def test_a_cluster_without_kubeflow_trainer_is_told(cluster: FakeCluster, launch: Launch) -> None:
    cluster.faults = [Fault("create", "trainjobs", 404)]
    with pytest.raises(ClusterError, match=r"Install Kubeflow Trainer"):
        launch()


def test_a_wrong_token_is_told_without_it(
    cluster: FakeCluster, launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = tmp_path / "other"
    text = cluster.kubeconfig(kubeconfig).read_text(encoding="utf-8")
    kubeconfig.write_text(text.replace(TOKEN, "an-old-token"), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    with pytest.raises(ClusterError, match=r"does not accept the credentials \(401\)") as caught:
        launch()
    assert "an-old-token" not in str(caught.value)


def test_an_api_server_that_stays_away_is_given_up_and_the_job_goes_on(
    cluster: FakeCluster, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lost(cluster: FakeCluster, job: str) -> None:
        start(cluster, job)
        cluster.wait_for_call("get", "pods/log")
        cluster.faults = [
            Fault(verb, kind, 503, -1) for verb in ("list", "watch") for kind in ("trainjobs", "pods", "events")
        ]
        cluster.drop_connections()
        cluster.wait_told("trying again")
        cluster.let_time_pass()

    cluster.scenario = lost
    with pytest.raises(ClusterError, match=r"503.*a job that exists continues"):
        launch()
    assert "trying again" in capsys.readouterr().err
    assert cluster.names("trainjobs") == ["one"]


def test_no_server_at_all_is_told(cluster: FakeCluster, launch: Launch) -> None:
    cluster.clock.runs = True
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        cluster.url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        import os

        cluster.kubeconfig(Path(os.environ["KUBECONFIG"]))
        with pytest.raises(ClusterError, match=r"gives no good answer to get trainjobs .*kubectl cluster-info"):
            launch()


def test_no_kubeconfig_is_told(launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(ClusterError, match=r"kubeconfig: gives no access to a cluster .*KUBECONFIG"):
        launch()


def test_a_broken_kubeconfig_is_told_without_its_text(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.write_text(f"users: [{{name: test, user: {{token: {TOKEN}}}\nclusters: ]", encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(broken))
    with pytest.raises(ClusterError, match=r"kubeconfig: is not readable YAML") as caught:
        launch()
    assert TOKEN not in str(caught.value)


def test_inside_a_pod_the_service_account_is_used(
    settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kubernetes.config import incluster_config

    for name, text in (("SERVICE_TOKEN_FILENAME", TOKEN), ("SERVICE_CERT_FILENAME", "a certificate")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        monkeypatch.setattr(incluster_config, name, str(tmp_path / name))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr("ocrmem.cluster.api.client.ApiClient", lambda settings: settings)
    assert Api(settings().kubernetes, Pauses()).server == "https://10.0.0.1:443"


def test_an_unknown_context_is_told(launch: Launch) -> None:
    with pytest.raises(ClusterError, match=r"kubeconfig: .*nowhere.*kubernetes\.context"):
        launch(context="nowhere")
