"""The TrainJob that a run becomes: strictly valid, everything that was set is in it, and nothing secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from support.kubernetes_api import check_train_job

from ocrmem.cluster import manifest
from ocrmem.cluster.manifest import PARAMS, as_yaml, pod_settings, settings_of, train_job
from ocrmem.cluster.sdk import trainer
from ocrmem.cluster.sdk_models import check_manifest
from ocrmem.config import RunConfig
from ocrmem.errors import ClusterError, ConfigError

Settings = Callable[..., RunConfig]
Object = dict[str, Any]
FULL: Object = {
    "namespace": "team",
    "nodes": 2,
    "gpus_per_node": 8,
    "gpu_resource": "amd.com/gpu",
    "cpu": "32",
    "memory": "400Gi",
    "cpu_limit": "64",
    "memory_limit": "500Gi",
    "shm_size": "64Gi",
    "secret_env": ["HF_TOKEN=hub/token"],
    "secret_variables": ["WANDB_API_KEY"],
    "env": {"NCCL_DEBUG": "WARN"},
    "tolerations": ["amd.com/gpu=present:NoSchedule", "spot:NoExecute", "dedicated"],
    "node_selector": {"gpu.model": "mi300x"},
    "labels": {"cost-center": "42"},
    "queue": "team-a",
    "priority": "high",
    "image_pull_secrets": ["registry"],
    "service_account": "trainer",
    "termination_grace_seconds": 300,
    "active_deadline_seconds": 86400,
    "runtime": "other",
}


@pytest.fixture
def job(settings: Settings) -> Object:
    return train_job(settings("train.processes=16", **FULL), "full")


def patched_pods(job: Object) -> Object:
    (patch,) = job["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert node["name"] == "node"
    return node["template"]["spec"]["template"]


def test_everything_that_was_set_is_in_it(job: Object) -> None:
    trainer, pods = job["spec"]["trainer"], patched_pods(job)
    assert job["metadata"]["namespace"] == "team"
    assert job["spec"]["activeDeadlineSeconds"] == 86400
    assert job["spec"]["runtimeRef"]["name"] == "other"
    assert trainer["numNodes"] == 2
    assert trainer["resourcesPerNode"] == {
        "requests": {"cpu": "32", "memory": "400Gi", "amd.com/gpu": "8"},
        "limits": {"cpu": "64", "memory": "500Gi", "amd.com/gpu": "8"},
    }
    assert trainer["env"] == [
        {"name": "HF_HOME", "value": "/workspace/models/hub"},
        {"name": "NCCL_DEBUG", "value": "WARN"},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
        {
            "name": "WANDB_API_KEY",
            "valueFrom": {"secretKeyRef": {"name": "ocrmem-secrets", "key": "WANDB_API_KEY", "optional": True}},
        },
    ]
    assert pods["spec"]["tolerations"] == [
        {"key": "amd.com/gpu", "operator": "Equal", "value": "present", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Exists", "effect": "NoExecute"},
        {"key": "dedicated", "operator": "Exists"},
    ]
    assert pods["spec"]["nodeSelector"] == {"gpu.model": "mi300x"}
    assert pods["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert pods["spec"]["serviceAccountName"] == "trainer"
    assert pods["spec"]["terminationGracePeriodSeconds"] == 300
    for labels in (job["metadata"]["labels"], pods["metadata"]["labels"]):
        assert labels["kueue.x-k8s.io/queue-name"] == "team-a"
        assert labels["kueue.x-k8s.io/priority-class"] == "high"
        assert labels["cost-center"] == "42"


def test_volumes_are_mounted_where_the_settings_of_the_pods_point(job: Object) -> None:
    spec = patched_pods(job)["spec"]
    mounts = {mount["name"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert mounts.keys() == volumes.keys() == {"params", "dataset", "features", "models", "output", "shm"}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Gi"}
    assert mounts["shm"]["mountPath"] == "/dev/shm"
    assert volumes["dataset"]["persistentVolumeClaim"] == {"claimName": "ocrmem-dataset", "readOnly": True}
    assert not mounts["output"]["readOnly"]
    paths = (settings_of(job) or {})["paths"]
    assert [paths[name] for name in ("dataset", "features", "models")] == [
        mounts[name]["mountPath"] for name in ("dataset", "features", "models")
    ]
    assert paths["adapter"] == "/workspace/output/full/adapter"
    assert paths["checkpoints"] == "/workspace/output/full/checkpoints"
    assert paths["reports"] == "/workspace/output/full"


def test_the_pods_can_read_their_settings(job: Object, settings: Settings, tmp_path: Path) -> None:
    """The downward API writes the annotation into a file; the container's command names it."""
    pods = patched_pods(job)
    (item,) = pods["spec"]["volumes"][0]["downwardAPI"]["items"]
    assert item["fieldRef"]["fieldPath"] == f"metadata.annotations['{PARAMS}']"
    file = tmp_path / item["path"]
    file.write_text(pods["metadata"]["annotations"][PARAMS], encoding="utf-8")
    wanted = pod_settings(settings("train.processes=16", **FULL), "full")
    assert RunConfig.load(file) == wanted
    trainer = job["spec"]["trainer"]
    assert trainer["command"] == ["ocrmem"]
    config = f"{pods['spec']['containers'][0]['volumeMounts'][0]['mountPath']}/{item['path']}"
    assert trainer["args"] == ["train", "--config", config, "--nproc", "auto", "--resume"]


@pytest.mark.parametrize("values", [{}, FULL | {"namespace": "ocrmem"}], ids=["defaults", "everything"])
def test_the_pods_that_the_runtime_makes_of_it_are_strictly_valid(settings: Settings, values: Object) -> None:
    processes = values.get("nodes", 1) * values.get("gpus_per_node", 1)
    job = train_job(settings(f"train.processes={processes}", **values), "strict")
    check_train_job(job)
    pods, trainer = patched_pods(job), job["spec"]["trainer"]
    container = {
        **pods["spec"]["containers"][0],
        "image": trainer["image"],
        "command": trainer["command"],
        "args": trainer["args"],
        "env": trainer["env"],
        "resources": trainer["resourcesPerNode"],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "strict", **pods["metadata"]},
        "spec": {**pods["spec"], "containers": [container]},
    }
    kubernetes_validate.validate(pod, "1.33", strict=True)


def test_the_printed_manifest_reads_back_and_shows_settings_as_lines(job: Object) -> None:
    text = as_yaml(job)
    assert yaml.safe_load(text) == job
    assert "&id" not in text
    assert f"{PARAMS}: |\n" in text
    assert "max_steps: 600" in (line.strip() for line in text.splitlines())


def test_the_same_settings_make_the_same_manifest(settings: Settings) -> None:
    assert as_yaml(train_job(settings(), "same")) == as_yaml(train_job(settings(), "same"))


def test_a_field_that_the_api_does_not_know_is_named(job: Object) -> None:
    patched_pods(job)["spec"]["priorityClassName"] = "high"
    with pytest.raises(ClusterError, match=r"priorityClassName: is not known to Kubeflow Trainer's API"):
        check_manifest(job)


def test_a_field_of_another_type_is_named(job: Object) -> None:
    job["spec"]["trainer"]["numNodes"] = "two"
    with pytest.raises(ClusterError, match=r"TrainJob .*numNodes"):
        check_manifest(job)


def test_a_path_inside_its_volume_stays(settings: Settings) -> None:
    paths = pod_settings(settings("paths.dataset=/workspace/dataset/v2", "paths.features=features"), "x").paths
    assert paths.dataset == "/workspace/dataset/v2"
    assert paths.features == "/workspace/features"


def test_a_file_of_this_machine_is_refused(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("zero.json").write_text('{"zero_optimization": {"stage": 2}}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"train\.deepspeed: is zero\.json, a file or directory of this machine"):
        train_job(settings("train.deepspeed=zero.json"), "x")
    named = settings(f"train.deepspeed={tmp_path / 'zero.json'}")
    assert (settings_of(train_job(named, "x")) or {})["train"]["deepspeed"] == str(tmp_path / "zero.json")


def test_a_cpu_run_asks_for_no_gpu(settings: Settings) -> None:
    job = train_job(settings("train.processes=2", nodes=2, gpus_per_node=0), "cpu")
    assert "nvidia.com/gpu" not in as_yaml(job).split("runtimePatches")[0]


@pytest.mark.parametrize("name", ["", "Upper", "1st", "a" * 41, "under_score", "dot.ted", "end-"])
def test_a_run_name_that_cannot_be_a_job_is_refused(settings: Settings, name: str) -> None:
    with pytest.raises(ConfigError, match=r"--run-name"):
        train_job(settings(), name)


def test_processes_must_be_those_of_the_job(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"train\.processes: is 1, but kubernetes\.nodes 2 x .* 4 make 8"):
        train_job(settings(nodes=2, gpus_per_node=4), "x")


def test_what_is_written_without_the_sdk_is_called_as_the_sdk_calls_it() -> None:
    written = (manifest.TRAINER, manifest.API_VERSION, manifest.KIND, manifest.NODE)
    assert written == (trainer.GROUP, trainer.API_VERSION, trainer.TRAINJOB_KIND, trainer.NODE)
