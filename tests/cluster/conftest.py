"""A cluster on loopback for every test, and settings with which nothing waits long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kubernetes_api import FakeCluster, running_cluster

from ocrmem.cluster.pauses import Pauses
from ocrmem.config import RunConfig

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
FAST = Pauses(first=0.02, longest=0.1, settle=0.3, logs=10, restart=0.02, watch=1, silence=10)
Settings = Callable[..., RunConfig]
Launch = Callable[..., dict[str, Any]]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with running_cluster() as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
        yield cluster
        assert not cluster.scenario_errors


@pytest.fixture
def settings() -> Settings:
    """The tiny preset's settings with overrides of `kubernetes`, by name."""

    def load(*overrides: str, **kubernetes: Any) -> RunConfig:
        config = RunConfig.load(PARAMS, overrides)
        values = config.as_dict()
        values["kubernetes"] |= {"image": "registry.test/ocrmem:1"} | kubernetes
        return RunConfig.from_dict(values)

    return load


@pytest.fixture
def launch(cluster: FakeCluster, settings: Settings) -> Launch:
    """`train_on_cluster` under the run name ``one``; further arguments are settings of `kubernetes`."""
    from ocrmem.cluster.trainjob import train_on_cluster

    def run(*overrides: str, run_name: str = "one", resume: bool = False, **kubernetes: Any) -> dict[str, Any]:
        config = settings(*overrides, **kubernetes)
        return train_on_cluster(config, run_name=run_name, resume=resume, pauses=FAST)

    return run
