"""The run name is the job's name: the same settings find it again, other settings are refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.kubernetes_api import Call, FakeCluster, now
from support.scenarios import complete, fail, start, success

from ocrmem.errors import ConfigError, TrainingError

Launch = Callable[..., dict[str, Any]]
Settings = Callable[..., Any]


def created(cluster: FakeCluster) -> int:
    return sum(call.verb == "create" and call.resource == "trainjobs" for call in cluster.calls)


def test_a_second_launcher_attaches_to_the_running_job(
    cluster: FakeCluster, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    def long_run(cluster: FakeCluster, job: str) -> None:
        pods = start(cluster, job)
        cluster.log(pods[0], *(f"step {number}" for number in range(50)))
        cluster.wait_for_call("get", "pods/log", times=2)
        cluster.log(pods[0], "the last step")
        complete(cluster, job, pods)

    cluster.scenario = long_run
    results: list[dict[str, Any]] = []
    first = threading.Thread(target=lambda: results.append(launch()))
    first.start()
    cluster.wait_for_call("get", "pods/log")
    capsys.readouterr()
    second = launch()
    first.join(timeout=600)

    assert second["attached"]
    assert not results[0]["attached"]
    assert created(cluster) == 1
    told = capsys.readouterr().err
    assert "TrainJob ocrmem/one exists already" in told
    assert "the last step" in told


def test_a_completed_job_is_reported_again_and_not_run_again(
    cluster: FakeCluster, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.scenario = success
    first = launch()
    capsys.readouterr()
    second = launch(resume=True)
    assert created(cluster) == 1
    assert second["attached"]
    assert {**second, "attached": False} == first
    assert "step 3 loss 0.5" in capsys.readouterr().err


def test_only_the_end_of_a_found_jobs_log_is_shown(
    cluster: FakeCluster, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    def long_run(cluster: FakeCluster, job: str) -> None:
        pods = start(cluster, job)
        cluster.log(pods[0], *(f"step {number}" for number in range(50)))
        complete(cluster, job, pods)

    cluster.scenario = long_run
    launch()
    capsys.readouterr()
    launch()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
    assert lines == [f"step {number}" for number in range(30, 50)]


def test_a_failed_job_is_reported_again_and_resume_starts_it_anew(cluster: FakeCluster, launch: Launch) -> None:
    def fails_once(cluster: FakeCluster, job: str) -> None:
        if created(cluster) > 1:
            return success(cluster, job)
        (pod,) = start(cluster, job)
        cluster.end_pod(pod, 1)
        return fail(cluster, job)

    cluster.scenario = fails_once
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"exit code 1"):
            launch()
    assert created(cluster) == 1
    assert launch(resume=True)["state"] == "complete"
    assert created(cluster) == 2
    (failure,) = json.loads(Path("trainjob.json").read_text(encoding="utf-8"))["failures"]
    assert failure["verdict"]["kind"] == "failed", "recorded once, by who followed it"


def test_why_a_job_failed_that_nobody_followed_is_recorded_before_it_is_replaced(
    cluster: FakeCluster, launch: Launch
) -> None:
    cluster.scenario = success
    launch()
    cluster.end_pod(cluster.names("pods")[0], 1)
    cluster.event("Pod", cluster.names("pods")[0], "BackOff", "restarting a failed container")
    failed = cluster.get("trainjobs", "one")
    failed["status"]["conditions"] = []
    cluster.put("trainjobs", failed)
    fail(cluster, "one")
    assert launch(resume=True)["state"] == "complete"
    (failure,) = json.loads(Path("trainjob.json").read_text(encoding="utf-8"))["failures"]
    assert failure["uid"] == failed["metadata"]["uid"]
    assert failure["verdict"] is None
    assert failure["conditions"][0]["type"] == "Failed"
    assert failure["pods"][0]["exit_code"] == 1
    assert failure["warnings"][0]["reason"] == "BackOff"


def test_other_settings_under_the_same_name_are_refused_and_named(cluster: FakeCluster, launch: Launch) -> None:
    cluster.scenario = success
    launch()
    with pytest.raises(ConfigError) as caught:
        launch("train.max_steps=900", "train.seed=7", memory="64Gi", env={"A": "b"})
    text = str(caught.value)
    assert "train.max_steps is 600 there and 900 here" in text
    assert "train.seed is 0 there and 7 here" in text
    assert "kubernetes.memory is 32Gi there and 64Gi here" in text
    assert "kubernetes.env.A is not set there and b here" in text
    assert "Give another --run-name" in text
    assert created(cluster) == 1


def test_what_only_the_launcher_reads_may_change(cluster: FakeCluster, launch: Launch) -> None:
    cluster.scenario = success
    launch()
    changed = {"on_interrupt": "delete", "pending_timeout_seconds": 5, "backoff_limit": 0, "context": "test"}
    assert launch(**changed)["attached"]


def test_a_job_that_was_not_made_here_is_left_alone(cluster: FakeCluster, launch: Launch) -> None:
    cluster.put("trainjobs", {"metadata": {"name": "one"}, "spec": {"runtimeRef": {"name": "torch-distributed"}}})
    with pytest.raises(ConfigError, match=r"a TrainJob that ocrmem did not create"):
        launch()
    assert cluster.names("trainjobs") == ["one"]


def test_a_job_that_is_being_deleted_is_waited_for(cluster: FakeCluster, launch: Launch) -> None:
    cluster.scenario = success
    launch()
    job = cluster.get("trainjobs", "one")
    job["metadata"]["deletionTimestamp"] = now()
    cluster.put("trainjobs", job)

    def collect() -> None:
        cluster.wait_for_call("get", "trainjobs", times=asked + 3)
        cluster.remove_job("one")

    asked = cluster.called("get", "trainjobs")

    threading.Thread(target=collect).start()
    assert not launch()["attached"]
    assert created(cluster) == 2


def test_two_launchers_at_once_make_one_job(cluster: FakeCluster, launch: Launch) -> None:
    """Both see no job, since neither is answered before both have asked; one create is answered with 409."""

    def both_first(call: Call) -> None:
        if (call.verb, call.resource) in (("get", "trainjobs"), ("create", "trainjobs")):
            cluster.wait_for_call(call.verb, call.resource, times=2)

    cluster.before = both_first
    cluster.scenario = success
    results: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: results.append(launch())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert sorted(result["attached"] for result in results) == [False, True]
    assert cluster.names("trainjobs") == ["one"]


def test_the_same_settings_have_the_same_default_name(settings: Settings) -> None:
    from ocrmem.cluster.manifest import run_name_for

    name = run_name_for(settings())
    assert run_name_for(settings(on_interrupt="delete")) == name
    assert run_name_for(settings("train.seed=1")) != name
    assert run_name_for(settings(image="registry.test/ocrmem:2")) != name
