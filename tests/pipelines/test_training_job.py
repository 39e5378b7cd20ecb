"""The task `train` with launcher kubernetes: artifacts to volumes, a TrainJob on a server on loopback, and back."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import dsl
from support.kubernetes_api import FakeCluster, running_cluster
from support.scenarios import fail, start, success

from ocrmem.cluster.manifest import settings_of
from ocrmem.config import RunConfig
from ocrmem.facts import RUN_ID
from ocrmem.files import sha256_tree, write_json, write_text
from ocrmem.json_files import with_sha256
from ocrmem.workflow.records import RUNS, read_records
from ocrmem.workflow.tasks import handed_settings

ROOT = Path(__file__).resolve().parents[2]
JOB = "train-7c1f-run-1"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv(RUNS, str(tmp_path / "runs"))
    monkeypatch.setenv(RUN_ID, "7c1f_Run.1")
    monkeypatch.syspath_prepend(str(ROOT))
    with running_cluster() as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
        yield cluster
        assert not cluster.scenario_errors


@pytest.fixture
def settings(tmp_path: Path) -> str:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    volumes = {}
    for name in ("dataset", "features", "models", "output"):
        (tmp_path / "volumes" / name).mkdir(parents=True)
        volumes[name] = {"path": str(tmp_path / "volumes" / name)}
    values["kubernetes"] = {"image": "registry.test/ocrmem:1", "volumes": volumes}
    return handed_settings(RunConfig.from_dict(values), "train")


@pytest.fixture
def artifacts(tmp_path: Path) -> dict[str, Any]:
    made = {}
    for name, kind in (("dataset", dsl.Dataset), ("features", dsl.Dataset), ("models", dsl.Model)):
        write_text(tmp_path / "artifacts" / name / "manifest.json", f'"{name}"')
        made[name] = kind(uri=str(tmp_path / "artifacts" / name))
    for name, kind in (("adapter", dsl.Model), ("training", dsl.Artifact), ("metrics", dsl.Metrics)):
        made[name] = kind(uri=str(tmp_path / "artifacts" / name))
    return made


def train(settings: str, artifacts: dict[str, Any]) -> None:
    component = importlib.import_module("components.train_adapter").train_adapter
    component.python_func(settings=settings, launcher="kubernetes", **artifacts)


def test_the_job_reads_the_artifacts_and_its_adapter_becomes_one(
    cluster: FakeCluster, settings: str, artifacts: dict[str, Any], tmp_path: Path
) -> None:
    volumes = tmp_path / "volumes"

    def trains(cluster: FakeCluster, job: str) -> None:
        home = volumes / "output" / job
        write_text(home / "adapter" / "adapter.safetensors", "weights")
        write_text(home / "plots" / "train.csv", "step,loss\n1,0.5\n")
        report = {
            "adapter_sha256": "a" * 64,
            "parameters": 5,
            "steps": 4,
            "seconds": 1.5,
            "loss": {"first": 2.0, "last": 0.5},
        }
        write_json(home / "train.json", with_sha256(report))
        success(cluster, job)

    cluster.scenario = trains
    train(settings, artifacts)

    paths = settings_of(cluster.get("trainjobs", JOB))["paths"]
    for name in ("dataset", "features", "models"):
        staged = Path(paths[name])
        assert staged.parent == volumes / name
        assert staged.name == sha256_tree(Path(artifacts[name].path))[:16]
        assert sha256_tree(staged) == sha256_tree(Path(artifacts[name].path))
    assert (Path(artifacts["adapter"].path) / "adapter.safetensors").read_text() == "weights"
    assert (Path(artifacts["training"].path) / "plots" / "train.csv").is_file()
    assert artifacts["adapter"].metadata["loss.last"] == artifacts["metrics"].metadata["loss.last"] == 0.5
    assert read_records(tmp_path / "runs" / "7c1f_Run.1")["train"].status == "done"

    made = len([call for call in cluster.calls if (call.verb, call.resource) == ("create", "trainjobs")])
    train(settings, artifacts)  # a second try of the task: the job is there and has ended
    assert len([call for call in cluster.calls if (call.verb, call.resource) == ("create", "trainjobs")]) == made == 1


def test_a_failed_job_fails_the_task_with_its_reason(
    cluster: FakeCluster, settings: str, artifacts: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def runs_out_of_memory(cluster: FakeCluster, job: str) -> None:
        [pod] = start(cluster, job)
        cluster.log(pod, "step 1 loss 2.5")
        cluster.end_pod(pod, 137, "OOMKilled")
        fail(cluster, job)

    cluster.scenario = runs_out_of_memory
    with pytest.raises(SystemExit) as left:
        train(settings, artifacts)
    assert left.value.code == 1
    assert "OOMKilled" in capsys.readouterr().err
    assert read_records(tmp_path / "runs" / "7c1f_Run.1")["train"].status == "failed"
    [failure] = json.loads((tmp_path / "runs" / "7c1f_Run.1" / "trainjob.json").read_text(encoding="utf-8"))["failures"]
    assert failure["trainjob"] == JOB
    assert failure["verdict"]["reason"] == "OOMKilled"


def test_a_volume_that_is_not_mounted_is_named_before_a_job_is_made(
    cluster: FakeCluster, settings: str, artifacts: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    values = json.loads(settings)
    values["kubernetes"]["volumes"]["features"]["path"] = "/nowhere/features"
    with pytest.raises(SystemExit) as left:
        train(json.dumps(values), artifacts)
    assert left.value.code == 2
    assert "/nowhere/features: is not mounted here" in capsys.readouterr().err
    assert not cluster.names("trainjobs")
