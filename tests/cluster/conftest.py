"""A cluster on loopback for every test, with a clock that scenarios drive: no test waits for real time to pass."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kubernetes_api import FakeCluster, running_cluster

from ocrmem.cluster.pauses import Pauses
from ocrmem.config import RunConfig
from ocrmem.console import console

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
Settings = Callable[..., RunConfig]
Launch = Callable[..., dict[str, Any]]


class _Overheard(io.TextIOBase):
    """stderr, which a scenario listens to: it then knows what the launcher has taken in."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster

    def write(self, text: str) -> int:
        self._cluster.hear(text)
        return sys.stderr.write(text)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.chdir(tmp_path)  # where trainjob.json goes
    with running_cluster() as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
        console.file = _Overheard(cluster)
        yield cluster
        console.file = None  # the stderr of the moment, not the one of this test, which monkeypatch would put back
        assert not cluster.scenario_errors


@pytest.fixture
def pauses(cluster: FakeCluster) -> Pauses:
    """The real waiting times, by the cluster's clock. A watch that ends is opened again, so that may be soon."""
    return Pauses(watch=2, silence=600, tick=0.02, clock=cluster.clock)


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
def launch(cluster: FakeCluster, settings: Settings, pauses: Pauses) -> Launch:
    """`train_on_cluster` under the run name ``one``; further arguments are settings of `kubernetes`."""
    from ocrmem.cluster.trainjob import train_on_cluster

    def run(*overrides: str, run_name: str = "one", resume: bool = False, **kubernetes: Any) -> dict[str, Any]:
        config = settings(*overrides, **kubernetes)
        cluster.over.clear()
        try:
            return train_on_cluster(config, run_name=run_name, resume=resume, pauses=pauses)
        finally:
            cluster.over.set()

    return run
