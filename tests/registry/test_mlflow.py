"""MLflow as the registry: one version a package, an alias that only a met gate moves, and what loads by name."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from support.registered import change_json, finished_run
from support.web import web

from ocrmem.adapter import package_adapter
from ocrmem.config import RunConfig
from ocrmem.errors import CheckFailed, ConfigError, MissingInputError, ModelError
from ocrmem.files import sha256_tree
from ocrmem.package import verify_package
from ocrmem.registry import backend_of, register, registration, registry_directory, resolve_adapter

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that has been started: that takes seconds, so every test copies it."""
    root = tmp_path_factory.mktemp("registry")
    register(finished_run(root, register={"name": "throw-away"}))
    return root / "registry" / "mlflow.db"


@pytest.fixture
def run(tmp_path: Path, empty_registry: Path) -> RunConfig:
    """A finished run beside a registry of its own."""
    (tmp_path / "registry").mkdir()
    shutil.copyfile(empty_registry, tmp_path / "registry" / "mlflow.db")
    return finished_run(tmp_path)


def with_gate(config: RunConfig, **bounds: float) -> RunConfig:
    gate = config.registry.gate.model_copy(update=bounds)
    return config.model_copy(update={"registry": config.registry.model_copy(update={"gate": gate})})


def versions(config: RunConfig) -> list[Any]:
    client = mlflow.MlflowClient(tracking_uri=config.registry.uri, registry_uri=config.registry.uri)
    found = client.search_model_versions(f"name='{config.registry.name}'")
    return sorted(found, key=lambda version: int(version.version))


def stored_package(config: RunConfig) -> Path:
    return Path(unquote(versions(config)[0].source.removeprefix("file://")))


def change_version(config: RunConfig, **fields: str) -> None:
    """Change a version's row behind MLflow's back."""
    with closing(sqlite3.connect(config.registry.uri.removeprefix("sqlite:///"))) as db, db:
        for column, value in fields.items():
            db.execute(f"UPDATE model_versions SET {column} = ?, storage_location = NULL", (value,))


def alias_holder(config: RunConfig) -> int | None:
    # Versions of a search carry no aliases.
    client = mlflow.MlflowClient(tracking_uri=config.registry.uri, registry_uri=config.registry.uri)
    try:
        return int(client.get_model_version_by_alias(config.registry.name, config.registry.alias).version)
    except mlflow.exceptions.MlflowException:
        return None


def test_a_met_gate_gives_a_version_with_the_alias_tags_and_metrics(run: RunConfig, tmp_path: Path) -> None:
    result = register(run)
    assert json.loads(run.paths.report("registration.json").read_text(encoding="utf-8")) == {
        key: value for key, value in result.items() if key != "summary"
    }
    assert result["version"] == 1
    assert result["model_uri"] == "models:/ocrmem-adapter/1"
    assert result["alias"] == "champion"
    assert result["gate"]["passed"] is True
    assert [line["metric"] for line in result["gate"]["lines"]] == [
        "memory.recall",
        "shuffled.recall",
        "no_memory.recall",
        "shuffled.loss - memory.loss",
    ]
    (version,) = versions(run)
    assert alias_holder(run) == 1
    assert version.tags["ocrmem.gate"] == "passed"
    assert version.tags["ocrmem.memory.recall"] == "0.9"
    assert version.tags["ocrmem.base_model"] == "tiny"
    assert version.tags["ocrmem.adapter_sha256"] == result["adapter_sha256"]
    client = mlflow.MlflowClient(tracking_uri=run.registry.uri)
    data = client.get_run(version.run_id).data
    assert data.metrics["memory.recall"] == 0.9
    assert data.metrics["compression_ratio"] == 1.25
    assert data.params["train.learning_rate"] == "0.001"
    assert any("models:/ocrmem-adapter@champion" in line for line in result["summary"])


def test_everything_of_the_registry_lies_beside_its_database(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    register(run)
    resolve_adapter("models:/ocrmem-adapter@champion", run)
    assert list(elsewhere.iterdir()) == []
    assert registry_directory(run) == tmp_path / "registry"


def test_the_same_package_again_makes_no_second_version(run: RunConfig) -> None:
    first = register(run)
    again = register(run)
    assert len(versions(run)) == 1
    assert again == first


def test_another_adapter_is_another_version_and_the_alias_means_the_better_one(run: RunConfig, tmp_path: Path) -> None:
    register(run)
    better = register(finished_run(tmp_path, weights=b"better weights", recall=0.95))
    assert (better["version"], better["alias"], alias_holder(run)) == (2, "champion", 2)
    equal = register(finished_run(tmp_path, weights=b"other weights", recall=0.95))
    assert (equal["version"], equal["alias"], alias_holder(run)) == (3, None, 2)
    assert any("champion stays version 2: memory.recall = 0.95, and 0.95" in line for line in equal["summary"])
    # Back in the first adapter's workspace: its version is found again, and what is said of the alias is true.
    first = register(finished_run(tmp_path))
    assert (first["version"], first["alias"], alias_holder(run)) == (1, None, 2)
    anyway = register(finished_run(tmp_path, register={"promote": "passed"}))
    assert (anyway["version"], anyway["alias"], alias_holder(run)) == (1, "champion", 1)


def test_a_dvc_experiment_registers_without_the_alias(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "stiff-kale")
    result = register(run)
    assert (result["version"], result["alias"], alias_holder(run)) == (1, None, None)
    assert any("means no version: this is the DVC experiment stiff-kale" in line for line in result["summary"])
    monkeypatch.delenv("DVC_EXP_NAME")
    assert register(run)["alias"] == "champion"


def test_a_failed_gate_registers_the_version_and_leaves_the_alias(run: RunConfig, tmp_path: Path) -> None:
    register(run)
    worse = with_gate(finished_run(tmp_path, weights=b"worse", recall=0.3), min_recall=0.5, min_loss_gain=9.0)
    with pytest.raises(CheckFailed) as caught:
        register(worse)
    assert [problem.place for problem in caught.value.problems] == [
        "register.gate.min_recall",
        "register.gate.min_loss_gain",
    ]
    assert "memory.recall = 0.3, wanted >= 0.5" in str(caught.value)
    assert "version 2 is registered as failed" in str(caught.value)
    assert caught.value.exit_code == 1
    assert [version.tags["ocrmem.gate"] for version in versions(worse)] == ["passed", "failed"]
    assert alias_holder(worse) == 1
    written = json.loads(worse.paths.report("registration.json").read_text(encoding="utf-8"))
    assert written["alias"] is None
    assert written["gate"]["passed"] is False
    said = (
        r"version, 2, did not pass the gate\. Name that version, models:/ocrmem-adapter/2, or .* change register\.gate"
    )
    with pytest.raises(ConfigError, match=said):
        resolve_adapter("models:/ocrmem-adapter@staging", worse)

    # A lower bound is a decision about the same version, not a new one.
    lowered = register(with_gate(worse, min_recall=0.2, min_loss_gain=0.0))
    assert (lowered["version"], lowered["alias"], alias_holder(worse)) == (2, None, 1)
    assert len(versions(worse)) == 2
    assert versions(worse)[1].tags["ocrmem.gate"] == "passed"


def test_a_loss_that_is_not_a_number_never_passes(run: RunConfig) -> None:
    change_json(run.paths.report("evaluation.json"), memory={"loss": float("nan"), "recall": 0.9})
    with pytest.raises(CheckFailed, match="min_loss_gain"):
        register(run)
    assert alias_holder(run) is None


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("smoke/report.json", {"ok": False}),
        ("reports/evaluation.json", {"adapter_sha256": "0" * 64}),
        ("reports/train.json", {"adapter_sha256": "0" * 64}),
    ],
)
def test_nothing_is_registered_without_reports_about_this_adapter(
    run: RunConfig, tmp_path: Path, file: str, changes: dict
) -> None:
    change_json(tmp_path / file, **changes)
    with pytest.raises(CheckFailed):
        register(run)
    assert versions(run) == []
    assert not run.paths.report("registration.json").exists()


def test_an_evaluation_without_a_gated_metric_is_refused(run: RunConfig) -> None:
    change_json(run.paths.report("evaluation.json"), shuffled={"recall": 0.1})
    with pytest.raises(MissingInputError, match=r"shuffled\.loss"):
        register(run)


@pytest.mark.parametrize("step", ["log_artifacts", "set_terminated", "create_model_version"])
def test_a_kill_before_the_version_leaves_nothing_that_a_rerun_trips_over(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with monkeypatch.context() as patched:

        def killed(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        patched.setattr(mlflow.MlflowClient, step, killed)
        with pytest.raises(KeyboardInterrupt):
            register(run)
    assert register(run)["version"] == 1
    (version,) = versions(run)
    client = mlflow.MlflowClient(tracking_uri=run.registry.uri)
    experiment = client.get_experiment_by_name("ocrmem-adapter")
    assert [found.info.run_id for found in client.search_runs([experiment.experiment_id])] == [version.run_id]
    folders = [path.name for path in (registry_directory(run) / "artifacts").iterdir()]
    assert folders == [version.run_id], "the files of what was cut off are gone"


def test_a_kill_before_the_alias_moves_is_made_up_for(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:

        def killed(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        patched.setattr(mlflow.MlflowClient, "set_registered_model_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            register(run)
    assert alias_holder(run) is None
    assert register(run)["version"] == 1
    assert alias_holder(run) == 1


@pytest.mark.parametrize("reference", ["models:/ocrmem-adapter@champion", "models:/ocrmem-adapter/1"])
def test_a_reference_gives_the_registered_files(run: RunConfig, tmp_path: Path, reference: str) -> None:
    register(run)
    found = resolve_adapter(reference, run)
    assert sha256_tree(found) == sha256_tree(tmp_path / "registry" / "package")
    verify_package(found)


def test_a_package_is_fetched_once_and_again_when_its_copy_was_changed(run: RunConfig) -> None:
    register(run)
    path = resolve_adapter("models:/ocrmem-adapter/1", run)
    weights = path / "adapter.safetensors"
    first = weights.stat()
    assert resolve_adapter("models:/ocrmem-adapter@champion", run) == path
    assert os.path.samestat(weights.stat(), first)
    weights.write_bytes(b"tampered")
    assert resolve_adapter("models:/ocrmem-adapter/1", run) == path
    assert weights.read_bytes() == b"weights"


@pytest.mark.parametrize("damage", ["changed", "lost", "linked", "another package"])
def test_a_registry_that_does_not_hold_the_package_is_refused_and_register_puts_it_back(
    run: RunConfig, tmp_path: Path, damage: str
) -> None:
    register(run)
    shutil.rmtree(tmp_path / "registry" / "cache")
    stored = stored_package(run)
    weights = stored / "adapter.safetensors"
    if damage == "changed":
        weights.write_bytes(b"tampered")
    elif damage == "lost":
        shutil.rmtree(tmp_path / "registry" / "artifacts")
    elif damage == "linked":
        weights.rename(tmp_path / "elsewhere")
        weights.symlink_to(tmp_path / "elsewhere")
    else:
        package_adapter(finished_run(tmp_path, weights=b"other"), stored)
        finished_run(tmp_path)
    said = {
        "changed": r"not what its provenance says: adapter\.safetensors",
        "lost": r"is not in the registry: there is no .*provenance\.json.* Run `ocrmem register`",
        "linked": "is a link out of its directory",
        "another package": "the registry says package",
    }
    with pytest.raises(ModelError, match=said[damage]):
        resolve_adapter("models:/ocrmem-adapter@champion", run)
    assert not list((tmp_path / "registry" / "cache").glob("*"))
    assert register(run)["version"] == 1
    verify_package(stored)
    shutil.rmtree(tmp_path / "registry" / "cache")
    verify_package(resolve_adapter("models:/ocrmem-adapter@champion", run))


def test_of_a_place_that_the_registry_names_no_file_is_taken_before_its_provenance_is_the_right_one(
    run: RunConfig, tmp_path: Path
) -> None:
    register(run)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "adapter.safetensors").write_bytes(b"private")
    os.mkfifo(tmp_path / "private" / "config.json")  # reading it would not end
    change_version(run, source=(tmp_path / "private").as_uri())
    shutil.rmtree(tmp_path / "registry" / "cache")
    with pytest.raises(ModelError, match=r"there is no .*private/provenance\.json"):
        resolve_adapter("models:/ocrmem-adapter/1", run)


def test_a_directory_is_its_own_answer(run: RunConfig, tmp_path: Path) -> None:
    assert resolve_adapter(str(tmp_path / "adapter"), run) == tmp_path / "adapter"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("models:/ocrmem-adapter", "names no version"),
        ("models:/ocrmem-adapter/latest", "names no version"),
        ("models:/a/b/1", "names no version"),
        ("models:ocrmem-adapter@champion", "names no version"),
        ("nowhere", "'nowhere' is not a directory"),
        ("models:/unknown@champion", "unknown"),
        ("models:/unknown/1", "unknown"),
        (
            "models:/throw-away@absent",
            r"alias absent; its newest version is \d+\. Check the alias .*models:/throw-away/\d",
        ),
        ("models:/throw-away/99", "99"),
    ],
)
def test_a_reference_to_nothing_says_so(run: RunConfig, reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_adapter(reference, run)


def test_a_file_of_a_server_is_taken_by_its_name_and_a_missing_one_is_told(tmp_path: Path) -> None:
    source = "mlflow-artifacts:/1/run/artifacts/adapter"
    served, api = "/api/2.0/mlflow-artifacts/artifacts", "/api/2.0/mlflow"
    version = {"name": "a", "version": "1", "source": source, "run_id": "run", "status": "READY"}
    listed = {"path": "config.json", "is_dir": False}
    with web() as server:
        server.answers = {
            f"{served}?path=1%2Frun%2Fartifacts%2Fadapter": (200, {"files": [listed]}, {}),
            f"{served}/1/run/artifacts/adapter/config.json": (200, {"served": True}, {}),
            f"{api}/model-versions/get-download-uri": (200, {"artifact_uri": source}, {}),
            f"{api}/model-versions/get": (200, {"model_version": version}, {}),
            f"{api}/registered-models/get": (
                200, {"registered_model": {"name": "a", "aliases": [{"alias": "champion", "version": "1"}]}}, {}
            ),
        }  # fmt: skip
        run = finished_run(tmp_path, register={"uri": server.url})
        with backend_of(run).open(run) as backend:
            assert backend.holder("a", "absent") is None
            found = backend.holder("a", "champion")
            assert found is not None
            backend.fetch(found, "config.json", tmp_path / "taken")
            with pytest.raises(FileNotFoundError):
                backend.fetch(found, "provenance.json", tmp_path / "absent")
    assert json.loads((tmp_path / "taken").read_text(encoding="utf-8")) == {"served": True}


def test_an_unreachable_server_is_one_problem_without_the_password(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)  # a server's local files lie in the working directory
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    section = run.registry.model_copy(update={"uri": "http://me:hunter2@127.0.0.1:9"})
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(ConfigError, match=r"http://\(hidden\)@127\.0\.0\.1:9") as caught,
    ):
        register(run.model_copy(update={"registry": section}))
    assert "hunter2" not in str(caught.value) + caplog.text
    assert len(caught.value.problems) == 1


def test_tracking_gets_the_package_as_an_artifact_once(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    tracked = run.model_copy(
        update={
            "tracking": run.tracking.model_copy(update={"wandb": "offline"}),
            "paths": run.paths.model_copy(update={"tracking": str(tmp_path / "wandb")}),
        }
    )
    opened = []
    real = registration.track
    monkeypatch.setattr(registration, "track", lambda config, job: opened.append(job) or real(config, job))
    result = register(tracked)
    assert result["wandb"] == {"artifact": "ocrmem-adapter", "project": "ocrmem", "mode": "offline"}
    assert register(tracked) == result
    assert opened == ["register"]
    (offline,) = (tmp_path / "wandb").glob("offline-run-*")
    assert b"ocrmem-adapter" in next(offline.glob("*.wandb")).read_bytes()
