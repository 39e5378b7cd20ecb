"""The ClusterTrainingRuntime fits the launcher's settings, the SDK that reads it, and the way training ends."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import manifests
from support.kubernetes_api import check_train_job, served_schemas
from support.manifests import K8S, OVERLAYS, ROOT, Object

from ocrmem.cluster.manifest import settings_of
from ocrmem.cluster.schemas import RUNTIME_FIELDS, unknown_fields
from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError, OcrMemError, PreemptedError

[RUNTIME] = manifests.documents(K8S / "base" / "runtime.yaml")
JOBSET = RUNTIME["spec"]["template"]["spec"]
[NODE] = JOBSET["replicatedJobs"]
JOB = NODE["template"]["spec"]
POD = JOB["template"]["spec"]
[CONTAINER] = POD["containers"]
SETTINGS = RunConfig().kubernetes


def test_it_is_what_the_settings_name_by_default() -> None:
    assert RUNTIME["metadata"]["name"] == SETTINGS.runtime
    assert CONTAINER["image"] == SETTINGS.image
    assert POD["serviceAccountName"] == SETTINGS.service_account
    assert POD["terminationGracePeriodSeconds"] == SETTINGS.termination_grace_seconds
    assert CONTAINER["resources"]["requests"]["memory"] == SETTINGS.memory
    assert CONTAINER["resources"]["requests"]["cpu"] == SETTINGS.cpu
    shm = next(volume for volume in POD["volumes"] if volume["name"] == "shm")
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": SETTINGS.shm_size}
    [namespace] = manifests.documents(K8S / "base" / "namespace.yaml")
    assert namespace["metadata"]["name"] == SETTINGS.namespace


def test_the_claims_are_those_that_the_settings_mount() -> None:
    there = {claim["metadata"]["name"] for claim in manifests.documents(K8S / "base" / "volumes.yaml")}
    volumes = SETTINGS.volumes
    assert there == {one.claim for one in (volumes.dataset, volumes.features, volumes.models, volumes.output)}


def test_kubeflows_sdk_finds_a_torch_trainer_in_it() -> None:
    from kubeflow.trainer.backends.kubernetes import utils
    from kubeflow.trainer.constants import constants
    from kubeflow_trainer_api import models

    runtime = models.TrainerV1alpha1ClusterTrainingRuntime.from_dict(RUNTIME)
    framework = RUNTIME["metadata"]["labels"][constants.RUNTIME_FRAMEWORK_LABEL]
    spec = runtime.spec
    trainer = utils.get_runtime_trainer(framework, spec.template.spec.replicated_jobs, spec.ml_policy)
    assert (trainer.framework, trainer.num_nodes, trainer.device) == ("torch", 1, "cpu")
    assert trainer.command[0] == "bash", "torchrun's entry point, not mpirun's"
    assert constants.TORCH_ENV_NUM_PROC_PER_NODE not in str(RUNTIME), "auto is what holds when nobody says otherwise"


@pytest.mark.skipif(not manifests.has_kubectl(), reason="kubectl is not there")
def test_the_sdk_counts_eight_gpus_in_the_gpu_overlay() -> None:
    from kubeflow.trainer.backends.kubernetes import utils
    from kubeflow_trainer_api import models

    [built] = manifests.of_kind(manifests.built(K8S / "overlays" / "gpu-8"), "ClusterTrainingRuntime")
    spec = models.TrainerV1alpha1ClusterTrainingRuntime.from_dict(built).spec
    trainer = utils.get_runtime_trainer("torch", spec.template.spec.replicated_jobs, spec.ml_policy)
    assert (trainer.device, trainer.device_count) == ("gpu", "8")


def test_preflight_asks_for_every_field_of_the_runtime_that_is_trainers_or_jobsets() -> None:
    """The pods' template is a core kind, which every server knows whole."""

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            leaf = {"template": None} if "podFailurePolicy" in value else {}
            kept = {key: inner for key, inner in value.items() if key not in leaf}
            return {key: None if key in ("labels", "podFailurePolicy") else shape(one) for key, one in kept.items()}
        return [shape(value[0])] if isinstance(value, list) else None

    assert shape({"spec": RUNTIME["spec"]}) == shape(RUNTIME_FIELDS)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_trainers_webhook_admits_the_examples_which_say_how_many_processes_start(overlay: Path) -> None:
    [job] = manifests.documents(overlay / "trainjob" / "trainjob.yaml")
    check_train_job(job)
    trainer, settings = job["spec"]["trainer"], settings_of(job) or {}
    assert trainer["numProcPerNode"] * trainer["numNodes"] == settings["train"]["processes"]


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("ClusterTrainingRuntime", sorted(K8S.glob("base/runtime.yaml"))),
        ("TrainJob", sorted(K8S.glob("overlays/*/trainjob/trainjob.yaml"))),
    ],
)
def test_no_field_is_unknown_to_the_schemas_that_trainer_serves(kind: str, files: list[Path]) -> None:
    from kubeflow_trainer_api import models

    kinds = [models.TrainerV1alpha1TrainJob, models.TrainerV1alpha1ClusterTrainingRuntime]
    schemas = served_schemas(kinds, set())["components"]["schemas"]
    assert files
    for file in files:
        [thing] = manifests.documents(file)
        assert unknown_fields(schemas, kind, thing) == []
        thing["spec"]["misspelt"] = 1
        assert unknown_fields(schemas, kind, thing) == ["spec.misspelt"]


def test_a_trainjob_reaches_its_node_by_name_and_label() -> None:
    assert (NODE["name"], CONTAINER["name"]) == ("node", "node")
    assert NODE["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}


def ending(exit_code: int, *, disrupted: bool) -> str:
    """What Job and JobSet make of a pod's end: the first rule that fits decides.

    https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy and
    https://jobset.sigs.k8s.io/docs/concepts/#failure-policy
    """
    assert POD["restartPolicy"] == "Never"
    assert JOB["backoffLimit"] == 0
    reason = "BackoffLimitExceeded"
    for rule in JOB["podFailurePolicy"]["rules"]:
        if _matches(rule, exit_code, disrupted):
            assert rule["action"] in ("Count", "FailJob")
            reason = "PodFailurePolicy" if rule["action"] == "FailJob" else reason
            break
    for rule in JOBSET["failurePolicy"]["rules"]:
        if reason in rule["onJobFailureReasons"] and NODE["name"] in rule["targetReplicatedJobs"]:
            return rule["action"]
    return "RestartJobSet"


def _matches(rule: Object, exit_code: int, disrupted: bool) -> bool:
    if "onPodConditions" in rule:
        return disrupted and {"type": "DisruptionTarget", "status": "True"} in rule["onPodConditions"]
    codes = rule["onExitCodes"]
    assert codes["containerName"] == CONTAINER["name"]
    return (exit_code in codes["values"]) is (codes["operator"] == "In")


@pytest.mark.parametrize(
    ("exit_code", "disrupted", "expected"),
    [
        (PreemptedError.exit_code, False, "RestartJobSet"),
        (PreemptedError.exit_code, True, "RestartJobSet"),
        (137, True, "RestartJobSet"),  # the grace period was too short, or the node is gone
        (1, True, "RestartJobSet"),
        (OcrMemError.exit_code, False, "FailJobSet"),
        (ConfigError.exit_code, False, "FailJobSet"),
        (137, False, "FailJobSet"),  # out of memory
        (127, False, "FailJobSet"),
    ],
)
def test_what_was_preempted_starts_again_and_what_is_wrong_does_not(
    exit_code: int, disrupted: bool, expected: str
) -> None:
    assert ending(exit_code, disrupted=disrupted) == expected


def test_all_pods_start_again_together_and_not_without_end() -> None:
    assert JOBSET["failurePolicy"]["restartStrategy"] == "BlockingRecreate"
    assert 0 < JOBSET["failurePolicy"]["maxRestarts"] < 100


def test_rules_have_names_that_jobset_takes() -> None:
    """Its webhook checks them against what its API only describes."""
    for rule in JOBSET["failurePolicy"]["rules"]:
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])


def example_trainjobs() -> Any:
    """scripts/example_trainjobs.py, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("example_trainjobs", ROOT / "scripts" / "example_trainjobs.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_the_example_is_what_the_launcher_prints(overlay: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    directory = overlay / "trainjob"
    script = example_trainjobs()
    assert directory in script.DIRECTORIES
    written = (directory / "trainjob.yaml").read_text(encoding="utf-8")
    assert script.printed(directory) == written, "settings have changed: run `make manifests`"


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_the_examples_settings_are_read_from_volumes_that_hold_them(overlay: Path) -> None:
    [job] = manifests.documents(overlay / "trainjob" / "trainjob.yaml")
    pod = manifests.training_pod(job, RUNTIME)
    [container] = pod.containers
    config = container["args"][container["args"].index("--config") + 1]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert Path(config).parent.as_posix() in mounts
    [patch] = job["spec"]["runtimePatches"]
    [replicated] = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    [params] = replicated["template"]["spec"]["template"]["metadata"]["annotations"].values()
    settings = RunConfig.from_dict(yaml.safe_load(params))
    for name, writable in (("dataset", False), ("features", False), ("models", True), ("adapter", True),
                           ("checkpoints", True), ("reports", True), ("tracking", True)):  # fmt: skip
        place = Path(getattr(settings.paths, name))
        [mount] = [mount for path, mount in mounts.items() if place.is_relative_to(path)]
        assert (not mount["readOnly"]) >= writable, name
    assert container["env"][0] == {"name": "HF_HOME", "value": "/workspace/models/hub"}
