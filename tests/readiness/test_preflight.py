"""What would stop a run is told before it starts: every problem of every check in one list, within seconds."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kubernetes_api import FakeCluster, running_cluster
from support.model_registry import model_registry
from support.page_dataset import write_manifest
from support.s3 import S3Service
from support.web import Web, web

from ocrmem.config import RunConfig
from ocrmem.errors import CheckFailed
from ocrmem.files import write_json
from ocrmem.readiness import preflight

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
QWEN = "Qwen/Qwen3-0.6B"


@pytest.fixture(autouse=True)
def in_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    monkeypatch.chdir(workspace)
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "NETRC", "MODEL_REGISTRY_TOKEN", "MLFLOW_TRACKING_USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def server() -> Iterator[Web]:
    with web() as running:
        yield running


def settings(*overrides: str, **sections: dict[str, Any]) -> RunConfig:
    """The tiny preset with overrides; ``sections`` go round the rules, for names whose sizes do not matter here."""
    config = RunConfig.load(PARAMS, overrides)
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=given) for name, given in sections.items()}
    )


def problems(config: RunConfig, launcher: str = "local") -> list[str]:
    with pytest.raises(CheckFailed) as caught:
        preflight(config, launcher)
    assert caught.value.exit_code == 1
    return [str(problem) for problem in caught.value.problems]


def only_problem(config: RunConfig, launcher: str = "local") -> str:
    (found,) = problems(config, launcher)
    return found


def test_a_run_that_needs_nothing_passes_with_a_line_a_check_and_writes_nothing() -> None:
    result = preflight(settings())
    names = ["packages", "tracking", "registry", "dataset remote", "models", "device", "disk"]
    assert [check["name"] for check in result["checks"]] == names
    assert [line.split(":")[0] for line in result["summary"]] == [f"ok  {name}" for name in names]
    assert list(Path.cwd().iterdir()) == []


def test_all_problems_of_all_checks_come_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    config = settings(
        "tracking.wandb=online",
        "register.uri=kubeflow+http://127.0.0.1:9",
        "register.store=/nonexistent/store",
        "version.remote=/nonexistent/remote",
        model={"ocr_model_name": "/nonexistent/encoder"},
    )
    assert [text.split(":")[0] for text in problems(config)] == [
        "tracking.wandb",
        "tracking.wandb",
        "register.uri",
        "register.store",
        "version.remote",
        "model.ocr_model_name",
    ]
    shown = capsys.readouterr().err
    assert "problem  registry: register.uri, register.store" in shown
    assert "ok  disk" in shown


def test_the_command_leaves_with_1_and_one_object(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ocrmem", "preflight", "--config", str(PARAMS), "--json", "--quiet"]
    done = subprocess.run(
        [*command, "--set", "version.remote=/nonexistent", "--launcher", "none"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem["place"] == "version.remote"


def test_a_package_that_is_needed_at_the_end_is_missed_at_the_beginning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in ("ocrmem.readiness.resources", "ocrmem.tracking"):
        monkeypatch.setattr(f"{module}.find_spec", lambda _: None)
    assert [text.split(". ")[-1] for text in problems(settings(f"version.remote={tmp_path}"))] == [
        "Run: pip install 'ocrmem[registry]'.",
        "Run: pip install 'ocrmem[dvc]'.",
        "Run: pip install 'ocrmem[tracking]'.",
    ]


# Tracking


@pytest.mark.parametrize("key", ["environment", "netrc", "missing"])
def test_an_online_run_wants_a_key_and_an_answer(
    key: str, server: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server.url)  # answers 404, as an API's bare address may
    if key == "environment":
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    elif key == "netrc":
        (tmp_path / "netrc").write_text(f"machine 127.0.0.1\n  login user\n  password {'k' * 40}\n", encoding="utf-8")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    config = settings("tracking.wandb=online")
    if key == "missing":
        assert "is online, but there is no Weights & Biases key" in only_problem(config)
        return
    assert "k" * 40 not in json.dumps(preflight(config))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 does not answer" in only_problem(config)


# Registry


def test_a_sqlite_registry_that_an_interrupted_start_left_is_no_problem_and_left_as_it_was() -> None:
    Path("registry").mkdir()
    with sqlite3.connect("registry/mlflow.db") as database:
        database.execute("create table experiments (experiment_id integer)")
    before = Path("registry/mlflow.db").read_bytes()
    preflight(settings())
    assert Path("registry/mlflow.db").read_bytes() == before


def test_a_sqlite_registry_that_cannot_be_written_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocrmem.registry.mlflow_database.ANSWER_SECONDS", 0.1)
    Path("registry").write_text("a file", encoding="utf-8")
    assert "register.uri: " in only_problem(settings())
    Path("registry").unlink()
    Path("registry").mkdir()
    Path("registry/mlflow.db").write_text("no database " * 100, encoding="utf-8")
    assert "registry/mlflow.db: it is damaged, or no database. Restore a copy" in only_problem(settings())
    Path("registry/mlflow.db").unlink()
    with sqlite3.connect("registry/mlflow.db") as holder:
        holder.execute("create table t (x)")
        holder.execute("begin exclusive")
        assert "registry/mlflow.db: another process writes to it. Try again" in only_problem(settings())


def test_an_mlflow_server_is_asked(server: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(f"register.uri={server.url}")
    server.answers = {"/api/2.0/mlflow/experiments": (401, {"error_code": "UNAUTHENTICATED", "message": "who?"}, {})}
    assert "Set MLFLOW_TRACKING_USERNAME" in only_problem(config).replace("set", "Set")
    server.answers = {"/api/2.0/mlflow/": (200, {"experiments": [], "registered_models": []}, {})}
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "someone")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    assert "hunter2" not in json.dumps(preflight(config))
    assert (server.calls[-1][1] or "").startswith("Basic ")
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_an_mlflow_server_that_is_not_there_or_silent_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocrmem.registry.mlflow_backend.ANSWER_SECONDS", 1)
    told = only_problem(settings("register.uri=http://127.0.0.1:9"))
    assert told.startswith("register.uri: the registry http://127.0.0.1:9 does not answer")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        told = only_problem(settings(f"register.uri=http://127.0.0.1:{silent.getsockname()[1]}"))
    assert "does not answer" in told


def test_a_kubeflow_registry_and_its_store_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("store").mkdir()
    with model_registry() as registry:
        config = settings(f"register.uri={registry.uri}", "register.store=store")
        preflight(config)
        assert registry.writes == []
        registry.token = "wanted"
        assert "answers 401 Unauthorized. Set MODEL_REGISTRY_TOKEN" in only_problem(config)
        monkeypatch.setenv("MODEL_REGISTRY_TOKEN", "wanted")
        preflight(config)
    assert "does not answer" in only_problem(config)


# The dataset's remote


def test_a_bucket_is_written_to_and_left_empty(s3: S3Service) -> None:
    s3.make_bucket("preflight-bucket")
    config = settings("version.remote=s3://preflight-bucket/data", f"version.endpoint_url={s3.url}")
    preflight(config)
    assert s3.objects("preflight-bucket") == {}
    s3.fault = lambda method, _: (403, "AccessDenied") if method == "PUT" else None
    assert "denies access to s3://preflight-bucket/data" in only_problem(config)


def test_a_remote_directory_is_written_to_and_left_empty(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    preflight(settings(f"version.remote={tmp_path / 'remote'}"))
    assert list((tmp_path / "remote").iterdir()) == []


# Models


def model_files(directory: Path, *names: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        content = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}} if "index" in name else {}
        write_json(directory / name, content)


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ((), "config.json"),
        (("config.json",), "model.safetensors"),
        (("config.json", "model.safetensors.index.json", "one.safetensors"), "two.safetensors"),
        (("config.json", "model.safetensors.index.json", "one.safetensors", "two.safetensors"), None),
        (("config.json", "model.safetensors"), None),
    ],
)
def test_a_model_directory_is_whole_or_what_it_lacks_is_named(
    tmp_path: Path, files: tuple[str, ...], missing: str | None
) -> None:
    directory = tmp_path / "encoder"
    model_files(directory, *files)
    config = settings(model={"ocr_model_name": str(directory)})
    if missing is None:
        preflight(config)
    else:
        assert f"which has no {missing}" in only_problem(config)
    preflight(config, launcher="none")  # the pods' directories are not these


@pytest.fixture
def hub(server: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Web:
    """The hub at an address of ours, and an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return server


INFO = {"id": QWEN, "siblings": [{"rfilename": "model.safetensors", "size": 2**30}]}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, INFO, {}), None),
        (
            (401, {}, {"X-Error-Code": "RepoNotFound"}),
            f"the hub does not know {QWEN}, or does not show it to you. Set HF_TOKEN",
        ),
        ((403, {}, {"X-Error-Code": "GatedRepo"}), f"{QWEN} is gated on the hub. Accept its terms there"),
        ((404, {}, {"X-Error-Code": "RevisionNotFound"}), f"{QWEN} has no revision abc. Give a commit"),
        ((500, {}, {}), f"answers 500 for {QWEN}"),
    ],
)
def test_the_hub_is_asked_for_a_name(hub: Web, answer: tuple[int, Any, dict[str, str]], said: str | None) -> None:
    hub.answers = {"/api/models/": answer}
    config = settings(model={"base_model_name": QWEN, "base_revision": "abc"})
    if said is None:
        (models,) = [check for check in preflight(config)["checks"] if check["name"] == "models"]
        assert f"{QWEN} is on the hub (1.0 GiB)" in models["detail"]
    else:
        assert said in only_problem(config)


def test_a_model_that_is_too_large_for_the_cache_is_reported(hub: Web) -> None:
    huge = {"id": QWEN, "siblings": [{"rfilename": "model.safetensors", "size": 2**60}]}
    hub.answers = {"/api/models/": (200, huge, {})}
    told = only_problem(settings(model={"base_model_name": QWEN}))
    assert "Free space, or set HF_HOME to a larger disk" in told


def test_the_cache_is_enough_when_it_is_whole(hub: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    repository = tmp_path / "cache" / f"models--{QWEN.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    snapshot = repository / "snapshots" / ("0" * 40)
    model_files(snapshot, "config.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = settings(model={"base_model_name": QWEN})
    assert "is incomplete in the cache" in only_problem(config)
    model_files(snapshot, "model.safetensors")
    preflight(config)
    assert hub.calls == []


def test_a_hub_out_of_reach_is_reported(hub: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "the hub http://127.0.0.1:9 does not answer" in only_problem(settings(model={"base_model_name": QWEN}))
    assert "is not a model's name" in only_problem(settings(model={"base_model_name": "a b//c"}))


# Machine and cluster


def test_a_gpu_that_is_not_here_is_reported_for_a_run_here_only(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = settings("model.device=cuda")
    assert only_problem(config).startswith("model.device: is cuda, but this machine has no CUDA device")
    preflight(config, launcher="none")


def test_a_disk_that_is_too_small_is_reported_with_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**40, 0, 2**26))
    preflight(settings())  # checkpoints alone fit
    write_manifest(Path("dataset"), [], pages=4096)
    told = only_problem(settings())
    # 4096 pages x 64 tokens x 128 wide x 4 bytes are 128 MiB.
    assert "paths.features and paths.checkpoints need about 165.1 MiB, and 64.0 MiB are free" in told
    Path("features").mkdir()
    Path("features/rows-abc.bin").write_bytes(bytes(2**27))
    preflight(settings())  # they are encoded already


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with running_cluster() as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig(tmp_path / "kubeconfig")))
        yield running


def test_the_cluster_is_asked_when_it_is_to_train(cluster: FakeCluster) -> None:
    config = settings("kubernetes.image=registry.test/ocrmem:1", "model.device=cuda", "paths.features=/elsewhere")
    assert preflight(config, launcher="kubernetes")["checks"][-1]["name"] == "cluster"
    cluster.remove("persistentvolumeclaims", "ocrmem-dataset")
    assert "kubernetes.volumes.dataset.claim" in only_problem(config, launcher="kubernetes")
