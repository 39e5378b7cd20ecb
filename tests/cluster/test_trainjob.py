"""A run from its start to its end, good or bad, against a real HTTP server: what is told, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.kubernetes_api import TOKEN, FakeCluster
from support.scenarios import complete, fail, start, success

from ocrmem.errors import ClusterError, OcrMemError, PreemptedError, TrainingError

Launch = Callable[..., dict[str, Any]]


def test_a_run_streams_rank_0_and_returns_where_the_adapter_is(
    cluster: FakeCluster, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    def two_nodes(cluster: FakeCluster, job: str) -> None:
        pods = start(cluster, job, nodes=2)
        cluster.log(pods[1], "a line of rank 1")
        cluster.log(pods[0], "step 1 loss 2.5", "step 2 loss 1.5")
        cluster.wait_for_call("get", "pods/log")
        cluster.log(pods[0], "[red]step 3[/red] loss 0.5")
        complete(cluster, job, pods)

    cluster.scenario = two_nodes
    result = launch("train.processes=2", nodes=2)

    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "loss" in line] == [
        "step 1 loss 2.5",
        "step 2 loss 1.5",
        "[red]step 3[/red] loss 0.5",
    ]
    assert "a line of rank 1" not in told
    assert result["state"] == "complete"
    assert not result["attached"]
    assert [(pod["node"], pod["exit_code"]) for pod in result["pods"]] == [("gpu-1", 0), ("gpu-1", 0)]
    assert result["adapter"] == {
        "claim": "ocrmem-output",
        "path": "one/adapter",
        "in_pods": "/workspace/output/one/adapter",
    }
    assert result["seconds"] >= 0
    assert TOKEN not in "\n".join([*told, str(result)])


def test_a_slow_start_is_no_failure(cluster: FakeCluster, launch: Launch) -> None:
    def slow(cluster: FakeCluster, job: str) -> None:
        cluster.clock.advance_and_be_seen(500)
        pod = cluster.add_pod(job)
        creating = {"waiting": {"reason": "ContainerCreating"}}
        cluster.pod(pod, "Pending", creating)
        cluster.wait_told(f"pod {pod}: pending")
        cluster.clock.advance_and_be_seen(5000)
        cluster.run_pod(pod)
        complete(cluster, job, [pod])

    cluster.scenario = slow
    assert launch(pending_timeout_seconds=600)["state"] == "complete"


ENDS = [
    ("an error", {"code": 1}, "Error: exit code 1", "--resume"),
    ("wrong settings", {"code": 2}, "exit code 2", "settings or their files"),
    ("out of memory", {"code": 137, "reason": "OOMKilled"}, "OOMKilled", "kubernetes.memory"),
    ("killed", {"code": 137}, "exit code 137", "grace period"),
    ("no such command", {"code": 127, "reason": "ContainerCannotRun"}, "exit code 127", "kubernetes.image"),
    ("terminated", {"code": 143}, "exit code 143", "termination_grace_seconds"),
    ("what the container said", {"code": 1, "message": "disk is full"}, "disk is full", "--resume"),
]


@pytest.mark.parametrize(("end", "message", "remedy"), [case[1:] for case in ENDS], ids=[case[0] for case in ENDS])
def test_a_failed_pod_ends_the_run_with_reason_last_lines_and_remedy(
    cluster: FakeCluster, launch: Launch, end: dict[str, Any], message: str, remedy: str
) -> None:
    def failing(cluster: FakeCluster, job: str) -> None:
        (pod,) = start(cluster, job)
        cluster.log(pod, *(f"line {number}" for number in range(30)), "the last line")
        cluster.end_pod(pod, **end)
        fail(cluster, job)

    cluster.scenario = failing
    with pytest.raises(TrainingError) as caught:
        launch()
    text = str(caught.value)
    assert message in text
    assert remedy in text
    assert "pod one-node-0-0-aaaaa" in text
    assert "    line 29\n    the last line\n" in text
    assert "line 10\n" not in text  # twenty lines
    assert cluster.names("trainjobs") == ["one"]  # kept, to be looked at


def test_of_several_failed_pods_the_one_that_began_it_is_blamed(cluster: FakeCluster, launch: Launch) -> None:
    def one_runs_out_of_memory(cluster: FakeCluster, job: str) -> None:
        pods = start(cluster, job, nodes=2)
        cluster.log(pods[0], "connection closed by peer")
        cluster.log(pods[1], "allocating 80 GiB")
        cluster.end_pod(pods[0], 1)
        cluster.end_pod(pods[1], 137, "OOMKilled")
        fail(cluster, job)

    cluster.scenario = one_runs_out_of_memory
    with pytest.raises(TrainingError, match=r"(?s)pod one-node-0-1-aaaaa: OOMKilled.*allocating 80 GiB"):
        launch("train.processes=2", nodes=2)


def test_a_failed_pod_is_seen_when_the_job_never_says_so(cluster: FakeCluster, launch: Launch) -> None:
    def unseen(cluster: FakeCluster, job: str) -> None:
        (pod,) = start(cluster, job)
        cluster.end_pod(pod, 1)
        cluster.wait_told("exit code 1")
        cluster.let_time_pass()

    cluster.scenario = unseen
    with pytest.raises(TrainingError, match="pod one-node-0-0-aaaaa: Error: exit code 1"):
        launch()


def test_a_pod_that_the_runtime_replaces_does_not_end_the_run(
    cluster: FakeCluster, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    def restarted(cluster: FakeCluster, job: str) -> None:
        (old,) = start(cluster, job)
        cluster.log(old, "before the restart")
        cluster.wait_for_call("get", "pods/log")
        cluster.end_pod(old, 1)
        cluster.remove("pods", old)
        (new,) = start(cluster, job, suffix="bbbbb")
        cluster.wait_told(f"pod {new}: running")
        cluster.clock.advance_and_be_seen(5000)  # a failure without a successor would be final
        cluster.log(new, "after the restart")
        complete(cluster, job, [new])

    cluster.scenario = restarted
    assert launch()["state"] == "complete"
    told = capsys.readouterr().err
    assert "pod one-node-0-0-aaaaa: Error: exit code 1" in told
    assert told.count("before the restart") == told.count("after the restart") == 1


UNSCHEDULABLE = {
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
        }
    ]
}


def test_an_unschedulable_pod_is_told_at_once_and_may_still_find_a_node(
    cluster: FakeCluster, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    def autoscaled(cluster: FakeCluster, job: str) -> None:
        pod = cluster.add_pod(job)
        cluster.pod(pod, "Pending", **UNSCHEDULABLE)
        cluster.wait_told("Unschedulable")
        cluster.clock.advance_and_be_seen(500)
        cluster.run_pod(pod)
        complete(cluster, job, [pod])

    cluster.scenario = autoscaled
    assert launch(pending_timeout_seconds=600)["state"] == "complete"
    assert "pod one-node-0-0-aaaaa: Unschedulable: 0/1 nodes are available: 1 Insufficient" in capsys.readouterr().err


def unschedulable(cluster: FakeCluster, job: str) -> None:
    cluster.pod(cluster.add_pod(job), "Pending", **UNSCHEDULABLE)


def event_only(cluster: FakeCluster, job: str) -> None:
    pod = cluster.add_pod(job)
    cluster.event("Pod", pod, "FailedScheduling", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")


def no_volume(cluster: FakeCluster, job: str) -> None:
    pod = cluster.add_pod(job, node="gpu-1")
    cluster.event("Pod", pod, "FailedMount", 'persistentvolumeclaim "ocrmem-output" not found')


def over_quota(cluster: FakeCluster, job: str) -> None:
    cluster.event("Job", f"{job}-node-0", "FailedCreate", "forbidden: exceeded quota: gpus")


def no_controller(cluster: FakeCluster, job: str) -> None:
    """Nothing at all happens."""


def waiting(reason: str, message: str) -> Callable[[FakeCluster, str], None]:
    def play(cluster: FakeCluster, job: str) -> None:
        pod = cluster.add_pod(job)
        cluster.pod(pod, "Pending", {"waiting": {"reason": reason, "message": message}})

    return play


PENDING = [
    ("unschedulable", unschedulable, "Insufficient nvidia.com/gpu", "node_selector"),
    ("event before status", event_only, "FailedScheduling", "node_selector"),
    ("no volume", no_volume, 'claim "ocrmem-output" not found', "kubernetes.volumes"),
    ("over quota", over_quota, "job one-node-0: FailedCreate: forbidden: exceeded quota", "quota"),
    ("no controller", no_controller, "no pod was created", "controllers"),
]
STUCK = [
    ("image", waiting("ImagePullBackOff", "Back-off pulling image"), "Back-off pulling image", "image_pull_secrets"),
    ("image name", waiting("InvalidImageName", "could not parse"), "InvalidImageName", "kubernetes.image"),
    ("key", waiting("CreateContainerConfigError", "couldn't find key X in Secret"), "find key X", "secret_env"),
]


@pytest.mark.parametrize(
    ("scenario", "message", "remedy", "passes"),
    [(*case[1:], True) for case in PENDING] + [(*case[1:], False) for case in STUCK],
    ids=[case[0] for case in PENDING + STUCK],
)
def test_a_job_that_cannot_start_is_given_up_and_deleted(
    cluster: FakeCluster, launch: Launch, scenario: Any, message: str, remedy: str, passes: bool
) -> None:
    """What may pass by itself after pending_timeout_seconds; what will not, at once."""

    def play(cluster: FakeCluster, job: str) -> None:
        scenario(cluster, job)
        if passes and scenario is not no_controller:
            cluster.wait_told(message)
        if passes:
            cluster.let_time_pass()

    cluster.scenario = play
    with pytest.raises(ClusterError) as caught:
        launch()
    assert message in str(caught.value)
    assert remedy in str(caught.value)
    assert "the job is deleted" in str(caught.value)
    cluster.wait(lambda: cluster.names("trainjobs") == [])


def test_a_job_that_waits_in_a_queue_is_not_given_up(
    cluster: FakeCluster, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    def queued(cluster: FakeCluster, job: str) -> None:
        cluster.job_condition(job, "Suspended", "Suspended")
        cluster.wait_told("is suspended")
        cluster.clock.advance_and_be_seen(5000)
        cluster.job_condition(job, "Suspended", "Resumed", status="False")
        success(cluster, job)

    cluster.scenario = queued
    assert launch(queue="team-a")["state"] == "complete"
    assert "TrainJob one is suspended: it waits in the queue team-a" in capsys.readouterr().err


def test_a_job_whose_gpus_are_taken_back_by_the_queue_is_waited_for(cluster: FakeCluster, launch: Launch) -> None:
    def suspended(cluster: FakeCluster, job: str) -> None:
        (old,) = start(cluster, job)
        cluster.wait_told(f"pod {old}: running")
        cluster.job_condition(job, "Suspended", "Suspended")
        cluster.wait_told("is suspended")
        cluster.end_pod(old, 143)
        cluster.remove("pods", old)
        cluster.wait_told(f"pod {old}: deleted")
        cluster.clock.advance_and_be_seen(5000)  # a failure without a successor would be final
        cluster.job_condition(job, "Suspended", "Resumed", status="False")
        complete(cluster, job, start(cluster, job, suffix="bbbbb"))

    cluster.scenario = suspended
    assert launch(queue="team-a")["state"] == "complete"


def test_events_of_others_and_of_earlier_jobs_are_not_ours(
    cluster: FakeCluster, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    def noisy(cluster: FakeCluster, job: str) -> None:
        cluster.event("Pod", "someone-else", "FailedScheduling", "not ours")
        cluster.event("Pod", f"{job}-2-node-0-0-xyz", "FailedScheduling", "not ours")
        cluster.event("Job", f"{job}-node-0", "FailedCreate", "not ours", when="2020-01-01T00:00:00Z")
        cluster.event("Job", f"{job}-node-0", "FailedCreate", "ours")
        cluster.wait_for_call("watch", "events")
        success(cluster, job)

    cluster.put("events", {"metadata": {"name": "old"}, "involvedObject": {}, "reason": "x", "type": "Normal"})
    cluster.scenario = noisy
    assert launch()["state"] == "complete"
    told = capsys.readouterr().err
    assert "FailedCreate: ours" in told
    assert "not ours" not in told


def preempted_once(cluster: FakeCluster, job: str) -> None:
    """The first job's pod saves a checkpoint and leaves with 75; the second job completes."""
    first = sum(call.verb == "create" and call.resource == "trainjobs" for call in cluster.calls) == 1
    if not first:
        return success(cluster, job)
    (pod,) = start(cluster, job)
    cluster.log(pod, "saved checkpoint-200")
    cluster.end_pod(pod, 75)
    return fail(cluster, job)


def test_a_preempted_run_is_started_again_with_resume(
    cluster: FakeCluster, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.scenario = preempted_once
    result = launch(backoff_limit=1)
    assert result["restarts"] == 1
    assert result["state"] == "complete"
    assert "Preempted: training saved a checkpoint" in capsys.readouterr().err
    jobs = [call.body for call in cluster.calls if call.verb == "create"]
    assert jobs[0] == jobs[1]
    assert "--resume" in jobs[1]["spec"]["trainer"]["args"]


DRAINED = {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]}


@pytest.mark.parametrize(
    ("end", "reason"),
    [({"code": 75}, "Preempted"), ({"code": 143, **DRAINED}, "EvictionByEvictionAPI")],
    ids=["checkpoint saved", "node drained"],
)
def test_a_preemption_is_told_apart_by_its_exit_code(
    cluster: FakeCluster, launch: Launch, end: dict[str, Any], reason: str
) -> None:
    def preempted(cluster: FakeCluster, job: str) -> None:
        pods = start(cluster, job, nodes=2)
        cluster.end_pod(pods[0], 1)  # its connection to the other broke
        cluster.end_pod(pods[1], **end)
        fail(cluster, job)

    cluster.scenario = preempted
    with pytest.raises(PreemptedError, match=rf"pod one-node-0-1-aaaaa: {reason}.*--resume") as caught:
        launch("train.processes=2", nodes=2, backoff_limit=0)
    assert caught.value.exit_code == 75


def test_the_active_deadline_is_named(cluster: FakeCluster, launch: Launch) -> None:
    def too_long(cluster: FakeCluster, job: str) -> None:
        (pod,) = start(cluster, job)
        cluster.end_pod(pod, 143)
        cluster.job_condition(job, "Failed", "DeadlineExceeded", "TrainJob exceeded its active deadline")

    cluster.scenario = too_long
    with pytest.raises(TrainingError, match=r"DeadlineExceeded.*active_deadline_seconds"):
        launch(active_deadline_seconds=60)


def test_a_job_that_someone_deletes_is_told(cluster: FakeCluster, launch: Launch) -> None:
    def deleted(cluster: FakeCluster, job: str) -> None:
        start(cluster, job)
        cluster.wait_for_call("get", "pods/log")
        cluster.remove_job(job)

    cluster.scenario = deleted
    with pytest.raises(OcrMemError, match="TrainJob one: Deleted: by someone else"):
        launch()


def test_a_key_in_the_log_is_hidden(cluster: FakeCluster, launch: Launch, capsys: pytest.CaptureFixture[str]) -> None:
    def careless(cluster: FakeCluster, job: str) -> None:
        (pod,) = start(cluster, job)
        cluster.log(pod, "logging in with hf_abcdefghijklmnopqrstuvwxyz")
        cluster.end_pod(pod, 1)
        fail(cluster, job)

    cluster.scenario = careless
    with pytest.raises(TrainingError) as caught:
        launch()
    assert "hf_abc" not in str(caught.value) + capsys.readouterr().err
    assert "logging in with (hidden)" in str(caught.value)
