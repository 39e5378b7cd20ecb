"""The sqlite file of a local registry: killed while it is made, locked, damaged, moved, copied, linked, raced for."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from support.registered import finished_run

from ocrmem.adapter import adapter_sha256
from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError, ModelError
from ocrmem.files import sha256_tree
from ocrmem.package import verify_package
from ocrmem.registry import backend_of, mlflow_database, register, resolve_adapter
from ocrmem.registry.mlflow_backend import MlflowBackend

mlflow = pytest.importorskip("mlflow")
PRESET = Path(__file__).resolve().parent.parent.parent / "params.yaml"
FORK = multiprocessing.get_context("fork")  # what is imported here need not be imported by each process


@pytest.fixture(scope="module")
def workspace_made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one version, at a path that is hard to quote."""
    root = tmp_path_factory.mktemp("""both ' and " and % in it""")
    register(finished_run(root))
    return root


@pytest.fixture
def workspace(workspace_made_once: Path, tmp_path: Path) -> Path:
    """A copy of it, without the packages that `resolve_adapter` keeps."""
    shutil.copytree(workspace_made_once, tmp_path / "workspace")
    shutil.rmtree(tmp_path / "workspace" / "registry" / "cache")
    return tmp_path / "workspace"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_database, "ANSWER_SECONDS", 0.1)


def database_of(config: RunConfig) -> Path:
    return Path(config.registry.uri.removeprefix("sqlite:///"))


def rows(database: Path, statement: str) -> list[tuple]:
    with closing(sqlite3.connect(database)) as db:
        return db.execute(statement).fetchall()


def execute(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as db, db:
        for statement in statements:
            db.execute(statement)


def registering(root: Path, weights: bytes) -> tuple[BaseProcess, RunConfig]:
    """A process that registers a run of ``root``."""
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    root.mkdir(exist_ok=True)
    run = finished_run(root, weights=weights)
    process = FORK.Process(target=register, args=(run,))
    process.start()
    return process, run


def version_of(process: BaseProcess, run: RunConfig) -> int:
    process.join(300)
    assert process.exitcode == 0
    return json.loads(run.paths.report("registration.json").read_text(encoding="utf-8"))["version"]


# Killed, unfinished, damaged


def test_a_kill_while_the_database_is_made_leaves_no_trace_that_a_rerun_trips_over(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    for size in (1, 60_000, 120_000):
        process, _ = registering(tmp_path, b"weights")
        end = time.monotonic() + 120
        new = registry / ".mlflow.db.new"
        while not (new.exists() and new.stat().st_size >= size):
            assert process.is_alive(), "it was done before it could be killed"
            assert time.monotonic() < end
            time.sleep(0.001)
        process.kill()
        process.join()
        assert not (registry / "mlflow.db").exists()
    assert version_of(*registering(tmp_path, b"weights")) == 1
    assert {path.name for path in registry.iterdir()} == {"artifacts", "cache", "mlflow.db", "package"}


def unfinished(database: Path) -> None:
    """What earlier versions left when they were killed: some of MLflow's tables at one of its versions, all empty."""
    database.parent.mkdir(parents=True)
    tables = "experiments (experiment_id INTEGER)", "runs (run_uuid VARCHAR)", "alembic_version (version_num VARCHAR)"
    execute(database, *(f"CREATE TABLE {table}" for table in tables))
    execute(database, "INSERT INTO alembic_version VALUES ('2b4d017a5e9b')")


def test_what_a_killed_start_left_is_made_anew_and_preflight_does_not_touch_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished_run(tmp_path)
    unfinished(database_of(run))
    before = database_of(run).read_bytes()
    assert backend_of(run).problems(run) == []
    with pytest.raises(ConfigError, match=r"no registry database .* or an unfinished one. Run `ocrmem register`"):
        resolve_adapter("models:/ocrmem-adapter/1", run)
    assert database_of(run).read_bytes() == before
    # A journal that outlives its database would be played back into the next one.
    Path(f"{database_of(run)}-journal").touch()
    assert register(run)["version"] == 1
    assert "an interrupted start left it unfinished and empty" in capsys.readouterr().err
    assert backend_of(run).problems(run) == []


def locked(database: Path) -> None:
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    HELD.append(holder)


HELD: list[sqlite3.Connection] = []


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (locked, "another process writes to it. Try again when it is done"),
        (lambda path: path.write_bytes(b"no database " * 1000), "it is damaged, or no database. Restore a copy"),
        (lambda path: os.truncate(path, 20_000), "it is damaged, or no database. Restore a copy"),
        (
            lambda path: execute(path, "UPDATE alembic_version SET version_num = '2b4d017a5e9b'"),
            "was made by an older MLflow (its tables are of version 2b4d017a5e9b). Copy the file, then run `mlflow db",
        ),
        (
            lambda path: execute(path, "UPDATE alembic_version SET version_num = 'ffffffffffff'"),
            "was made by a newer MLflow (its tables are of version ffffffffffff). Install that MLflow",
        ),
        (lambda path: execute(path, "DELETE FROM alembic_version"), "it is damaged, or no database. Restore a copy"),
        (
            lambda path: path.unlink() or execute(path, "CREATE TABLE customers (name)"),
            "is a database of something else. Name another file",
        ),
    ],
    ids=["locked", "text", "cut off", "older", "newer", "without a version", "of something else"],
)
def test_a_database_that_cannot_be_used_is_one_line_and_stays_as_it_is(
    workspace: Path, harm: Callable[[Path], None], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run = finished_run(workspace, weights=b"second")
    harm(database_of(run))
    before = sha256_tree(database_of(run))
    (found,) = backend_of(run).problems(run)
    with pytest.raises(ConfigError) as refused:
        register(run)
    with pytest.raises(ConfigError) as unread:
        resolve_adapter("models:/ocrmem-adapter@champion", run)
    for problems in ([found], refused.value.problems, unread.value.problems):
        (problem,) = problems
        assert problem.place == "register.uri"
        assert f"{database_of(run)}" in problem.message
        assert said in f"{problem.message}. {problem.remedy}"
        assert "sql" not in str(problem).replace(str(database_of(run)), "").replace("sqlite:///", "").lower()
    assert (refused.value.exit_code, sha256_tree(database_of(run))) == (2, before)
    assert "Traceback" not in capfd.readouterr().err
    while HELD:
        HELD.pop().close()


def test_a_lock_that_comes_in_between_is_one_line_too(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """MLflow waits 20 s for a lock, by a pragma of its own; this asks it to wait for none."""
    from sqlalchemy.sql import text

    run = finished_run(workspace, weights=b"second")
    monkeypatch.setattr(
        "mlflow.store.db.utils.sql.text",
        lambda statement: text(statement.replace("busy_timeout = 20000", "busy_timeout = 1")),
    )
    real = mlflow.MlflowClient.create_run

    def create_run(*given, **named):
        locked(database_of(run))
        return real(*given, **named)

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", create_run)
    with pytest.raises(ConfigError, match=r"another process writes to it\. Try again") as refused:
        register(run)
    assert "INSERT" not in str(refused.value)
    assert capfd.readouterr().err == ""
    HELD.pop().close()
    monkeypatch.setattr(mlflow.MlflowClient, "create_run", real)
    assert register(run)["version"] == 2


def test_one_relative_name_in_two_folders_of_a_process_is_two_databases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        with MlflowBackend.open(RunConfig.load(PRESET), write=True) as backend:
            backend._client.create_registered_model(name)
    for name in ("first", "second"):
        database = tmp_path / name / "registry" / "mlflow.db"
        assert rows(database, "SELECT name FROM registered_models") == [(name,)]


def test_a_question_makes_no_database(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    with pytest.raises(ConfigError, match=r"no registry database .*mlflow\.db yet"):
        resolve_adapter("models:/ocrmem-adapter@champion", run)
    assert backend_of(run).problems(run) == []
    assert not (tmp_path / "registry").exists()


def test_a_name_that_the_database_would_cut_is_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path, register={"uri": f"sqlite:///{tmp_path}/what?/mlflow.db"})
    (problem,) = backend_of(run).problems(run)
    assert "has a '?'" in problem.message
    with pytest.raises(ConfigError, match=r"has a '\?'"):
        register(run)


@pytest.mark.parametrize("name", ["it's", 'say "hello"', """both ' and \\"""])
def test_a_name_with_quotes_is_a_name(workspace: Path, name: str) -> None:
    run = finished_run(workspace, register={"name": name})
    assert (register(run)["version"], register(run)["version"]) == (1, 1)
    verify_package(resolve_adapter(f"models:/{name}@champion", run))


# Moved, copied, linked


def moved(workspace: Path) -> Path:
    return workspace.rename(workspace.with_name("elsewhere"))


def copied(workspace: Path) -> Path:
    return shutil.copytree(workspace, workspace.with_name("copy"))


def linked(workspace: Path) -> Path:
    workspace.with_name("link").symlink_to(workspace)
    return workspace.with_name("link")


def with_a_linked_registry(workspace: Path) -> Path:
    (workspace / "registry").rename(workspace.with_name("big disk"))
    (workspace / "registry").symlink_to(workspace.with_name("big disk"))
    return workspace


def with_a_linked_database(workspace: Path) -> Path:
    other = workspace.with_name("other")
    (other / "registry").mkdir(parents=True)
    (other / "registry" / "mlflow.db").symlink_to(workspace / "registry" / "mlflow.db")
    return other


@pytest.mark.parametrize("how", [moved, copied, linked, with_a_linked_registry, with_a_linked_database])
def test_a_registry_works_wherever_its_folder_is_and_a_copy_leaves_the_original_alone(
    workspace: Path, how: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = sha256_tree(workspace / "registry")
    place = how(workspace)
    monkeypatch.chdir(place)
    run = finished_run(place)
    assert adapter_sha256(resolve_adapter("models:/ocrmem-adapter@champion", run)) == adapter_sha256(place / "adapter")
    second = finished_run(place, weights=b"second", recall=0.95)
    assert register(second)["version"] == 2
    assert register(finished_run(place))["version"] == 1
    database = database_of(run).resolve()
    places = [source for (source,) in rows(database, "SELECT source FROM model_versions")]
    places += [uri for (uri,) in rows(database, "SELECT artifact_uri FROM runs")]
    assert len(places) == 4
    for uri in places:  # as MLflow's own pages read them
        assert uri.startswith(f"{(database.parent / 'artifacts').as_uri()}/")
    shutil.rmtree(place / "registry" / "cache")
    for number, weights in ((1, b"weights"), (2, b"second")):
        found = resolve_adapter(f"models:/ocrmem-adapter/{number}", run)
        assert (found / "adapter.safetensors").read_bytes() == weights
    if how is copied:
        assert sha256_tree(workspace / "registry") == original


def test_a_database_that_was_copied_without_its_artifacts_says_what_helps(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "registry").mkdir(parents=True)
    run = finished_run(tmp_path / "other")
    shutil.copyfile(workspace / "registry" / "mlflow.db", database_of(run))
    with pytest.raises(
        ModelError, match="Run `ocrmem register` where the adapter was trained: it puts the package back"
    ):
        resolve_adapter("models:/ocrmem-adapter/1", run)
    assert register(run)["version"] == 1
    verify_package(resolve_adapter("models:/ocrmem-adapter/1", run))


# Two at once


@pytest.mark.parametrize("weights", [(b"same", b"same"), (b"one", b"other")], ids=["one package", "two packages"])
def test_two_registers_at_once_in_a_new_workspace_make_a_version_of_each_package(
    tmp_path: Path, weights: tuple[bytes, bytes]
) -> None:
    # Each has outputs of its own, and they share the registry.
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "mlflow.db").touch()  # as a start that was killed at once leaves it
    both = []
    for number, content in enumerate(weights):
        root = tmp_path / str(number)
        root.mkdir()
        (root / "registry").symlink_to(tmp_path / "registry")
        both.append(registering(root, content))
    wanted = {1} if weights[0] == weights[1] else {1, 2}
    assert {version_of(*one) for one in both} == wanted
    database = tmp_path / "registry" / "mlflow.db"
    assert len(rows(database, "SELECT * FROM model_versions")) == len(wanted)
    assert len(rows(database, "SELECT * FROM runs WHERE lifecycle_stage = 'active'")) == len(wanted)
