"""What happens to a TrainJob on the fake cluster: each plays Kubeflow Trainer, the scheduler and kubelet."""

from __future__ import annotations

from support.kubernetes_api import FakeCluster


def start(cluster: FakeCluster, job: str, *, nodes: int = 1, suffix: str = "aaaaa") -> list[str]:
    """Make the pods and let them run."""
    pods = [cluster.add_pod(job, index, suffix) for index in range(nodes)]
    for pod in pods:
        cluster.run_pod(pod)
    return pods


def complete(cluster: FakeCluster, job: str, pods: list[str]) -> None:
    for pod in pods:
        cluster.end_pod(pod)
    cluster.job_condition(job, "Complete", "JobsCompleted", "jobset completed successfully")


def fail(cluster: FakeCluster, job: str) -> None:
    cluster.job_condition(job, "Failed", "FailedJobs", "jobset failed due to one or more job failures")


def success(cluster: FakeCluster, job: str) -> None:
    """Three lines of log, the last after the launcher has begun to read."""
    pods = start(cluster, job)
    cluster.log(pods[0], "step 1 loss 2.5", "step 2 loss 1.5")
    cluster.wait_for_call("get", "pods/log")
    cluster.log(pods[0], "step 3 loss 0.5")
    complete(cluster, job, pods)
