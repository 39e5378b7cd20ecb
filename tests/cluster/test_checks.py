"""What preflight finds on a cluster before a GPU is asked for; and that the rights it names are all that is used."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from support.kubernetes_api import TOKEN, FakeCluster, Fault
from support.scenarios import start, success

from ocrmem.cluster.checks import cluster_problems
from ocrmem.cluster.pauses import Pauses
from ocrmem.cluster.permissions import ACCESS_REVIEWS, PERMISSIONS
from ocrmem.config import PLACEHOLDER_IMAGE, RunConfig

Settings = Callable[..., RunConfig]
Launch = Callable[..., dict[str, Any]]
Change = Callable[[FakeCluster], object]


def quota(cluster: FakeCluster, hard: dict[str, str], used: dict[str, str]) -> None:
    cluster.put("resourcequotas", {"metadata": {"name": "team"}, "status": {"hard": hard, "used": used}})


def nothing(cluster: FakeCluster) -> None:
    """The cluster as k8s/base makes it."""


def lost_claim(cluster: FakeCluster) -> None:
    cluster.put("persistentvolumeclaims", {"metadata": {"name": "ocrmem-models"}, "status": {"phase": "Lost"}})


ONLINE = "tracking.wandb=online"
FOUND = [
    ("the placeholder image", nothing, (), {"image": PLACEHOLDER_IMAGE}, "kubernetes.image: is registry.example.org"),
    ("no namespace", lambda c: c.remove("namespaces", "ocrmem"), (), {}, "kubernetes.namespace: is ocrmem"),
    ("no runtime", nothing, (), {"runtime": "other"}, "kubernetes.runtime: is other"),
    (
        "no claim",
        lambda c: c.remove("persistentvolumeclaims", "ocrmem-features"),
        (),
        {},
        "kubernetes.volumes.features.claim: is ocrmem-features",
    ),
    ("a lost claim", lost_claim, (), {}, "kubernetes.volumes.models.claim: is ocrmem-models, which has lost"),
    ("no secret", nothing, (), {"secret_env": ["A=other/key"]}, "kubernetes.secret_env.0: needs the Secret other"),
    (
        "no key",
        nothing,
        (),
        {"secret_env": ["A=ocrmem-secrets/nope"]},
        "kubernetes.secret_env.0: needs the key nope of the Secret ocrmem-secrets",
    ),
    ("no pull secret", nothing, (), {"image_pull_secrets": ["reg"]}, "image_pull_secrets: needs the Secret reg"),
    (
        "no W&B secret",
        lambda c: c.remove("secrets", "ocrmem-secrets"),
        (ONLINE,),
        {},
        "tracking.wandb: needs the Secret",
    ),
    ("no W&B key", nothing, (ONLINE,), {"secret_variables": []}, "tracking.wandb: is online, and no Secret gives"),
    (
        "a full quota",
        lambda c: quota(c, {"requests.nvidia.com/gpu": "4"}, {"requests.nvidia.com/gpu": "4"}),
        (),
        {},
        "ResourceQuota team: leaves 0 of requests.nvidia.com/gpu (4 of 4 are used), and the job needs 1",
    ),
    (
        "a quota without enough memory",
        lambda c: quota(c, {"limits.memory": "100Gi"}, {"limits.memory": "90Gi"}),
        (),
        {},
        "leaves 10.0 Gi of limits.memory (90Gi of 100Gi are used), and the job needs 32.0 Gi",
    ),
    (
        "too few GPUs a node",
        nothing,
        ("train.processes=16",),
        {"gpus_per_node": 16},
        "kubernetes.gpus_per_node: asks for 1 nodes with 16 nvidia.com/gpu each; 0 have so many, the largest has 8",
    ),
    ("no such GPUs", nothing, (), {"gpu_resource": "amd.com/gpu"}, "asks for 1 nodes with 1 amd.com/gpu each; 0 have"),
    ("no selected node", nothing, (), {"node_selector": {"gpu": "h100"}}, "nvidia.com/gpu each; 0 have so many"),
]


@pytest.mark.parametrize(
    ("change", "overrides", "values", "message"), [case[1:] for case in FOUND], ids=[case[0] for case in FOUND]
)
def test_one_thing_that_is_missing_is_one_problem(
    cluster: FakeCluster,
    settings: Settings,
    pauses: Pauses,
    change: Change,
    overrides: tuple[str, ...],
    values: dict[str, Any],
    message: str,
) -> None:
    change(cluster)
    (problem,) = cluster_problems(settings(*overrides, **values), pauses)
    assert message in str(problem)
    assert problem.remedy


def test_a_cluster_that_is_ready_has_no_problem(cluster: FakeCluster, settings: Settings, pauses: Pauses) -> None:
    quota(cluster, {"requests.nvidia.com/gpu": "4", "pods": "10"}, {"requests.nvidia.com/gpu": "3", "pods": "2"})
    assert cluster_problems(settings(ONLINE, secret_env=["A=ocrmem-secrets/WANDB_API_KEY"]), pauses) == []
    changing = {call.verb for call in cluster.calls if call.resource != "selfsubjectaccessreviews"}
    assert changing <= {"get", "list"}


def test_all_problems_are_listed_at_once(cluster: FakeCluster, settings: Settings, pauses: Pauses) -> None:
    cluster.remove("persistentvolumeclaims", "ocrmem-dataset")
    cluster.forbidden = {("create", "trainjobs"), ("get", "pods/log")}
    places = [str(problem) for problem in cluster_problems(settings(runtime="other", image=PLACEHOLDER_IMAGE), pauses)]
    assert len(places) == 5, places


@pytest.mark.parametrize(
    ("verb", "resource"),
    [(verb, row.name) for row in PERMISSIONS if row.required for verb in row.verbs],
    ids=lambda value: value,
)
def test_every_missing_right_is_one_problem(
    cluster: FakeCluster, settings: Settings, pauses: Pauses, verb: str, resource: str
) -> None:
    cluster.forbidden = {(verb, resource)}
    (problem,) = cluster_problems(settings(), pauses)
    assert f"refuses {verb} on {resource}" in problem.message
    assert "Role" in problem.remedy


def test_without_the_right_to_list_nodes_that_check_is_left_out_aloud(
    cluster: FakeCluster, settings: Settings, pauses: Pauses, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.forbidden = {("list", "nodes")}
    assert cluster_problems(settings(gpu_resource="amd.com/gpu"), pauses) == []
    assert "Nodes may not be listed" in capsys.readouterr().err


def test_the_value_of_a_secret_is_nowhere(
    cluster: FakeCluster, settings: Settings, pauses: Pauses, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = cluster_problems(settings(ONLINE, secret_env=["A=ocrmem-secrets/nope"]), pauses)
    said = str(problems) + capsys.readouterr().err
    assert "bm90IGEga2V5" not in said  # the value in the fake Secret
    assert TOKEN not in said


def test_an_api_server_that_fails_is_a_problem_and_no_traceback(
    cluster: FakeCluster, settings: Settings, pauses: Pauses
) -> None:
    cluster.clock.runs = True
    cluster.faults = [Fault("create", "selfsubjectaccessreviews", 503, -1)]
    (problem,) = cluster_problems(settings(), pauses)
    assert "gives no good answer" in problem.message


def test_the_table_of_rights_is_exactly_what_the_server_saw(
    cluster: FakeCluster, settings: Settings, pauses: Pauses, launch: Launch
) -> None:
    """A run, an interrupted one that is deleted, and the checks use every row of the table and nothing else."""
    cluster.scenario = success
    launch()

    def runs_on(cluster: FakeCluster, job: str) -> None:
        start(cluster, job)
        cluster.wait_for_call("get", "pods/log", times=2)
        os.kill(os.getpid(), signal.SIGINT)

    cluster.scenario = runs_on
    with pytest.raises(KeyboardInterrupt):
        launch(run_name="two", on_interrupt="delete")
    cluster_problems(settings(ONLINE), pauses)
    table = {(row.group, row.name, verb) for row in (*PERMISSIONS, ACCESS_REVIEWS) for verb in row.verbs}
    assert cluster.used() == table
