"""The Kubeflow Model Registry: what is written there, once, whatever is cut off, and what loads by name."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.model_registry import ModelRegistryServer, model_registry
from support.registered import finished_run
from support.s3 import SECRET_KEY, S3Service

from ocrmem.adapter import package_adapter
from ocrmem.config import RunConfig
from ocrmem.errors import CheckFailed, ConfigError, ModelError
from ocrmem.files import sha256_file, sha256_tree, write_json
from ocrmem.json_files import with_sha256
from ocrmem.package import verify_package
from ocrmem.registry import backend_of, register, resolve_adapter

pytest.importorskip("model_registry")
NAME = "ocrmem-adapter"
TOKEN = "a-token-that-must-not-be-seen"
WRITES_OF_A_VERSION = [
    ("POST", "/registered_models"),
    ("POST", "/model_versions"),
    ("POST", "/model_versions/2/artifacts"),
    ("PATCH", "/registered_models/1"),
]


@pytest.fixture
def server() -> Iterator[ModelRegistryServer]:
    with model_registry() as running:
        yield running


@pytest.fixture(autouse=True)
def in_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a server's local files lie in the working directory
    for name in ("MODEL_REGISTRY_TOKEN", "KF_PIPELINES_SA_TOKEN_PATH", "OCRMEM_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    # The client reads all certificates of the machine anew for every call, 0.1 s each; here nothing is encrypted.
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    (tmp_path / "store").mkdir()


def finished(server: ModelRegistryServer, root: Path, **changes: Any) -> RunConfig:
    section = {"uri": server.uri, "store": str(root / "store"), **changes.pop("register", {})}
    return finished_run(root, register=section, **changes)


@pytest.fixture
def run(server: ModelRegistryServer, tmp_path: Path) -> RunConfig:
    return finished(server, tmp_path)


def alias_of(server: ModelRegistryServer, alias: str = "champion") -> str | None:
    (model,) = server.models.values()
    value = model.get("customProperties", {}).get(f"ocrmem.alias.{alias}")
    return value and value["string_value"]


def test_a_version_has_its_package_metrics_hashes_run_id_and_gate(
    run: RunConfig, server: ModelRegistryServer, tmp_path: Path
) -> None:
    dataset_hash = sha256_file(tmp_path / "dataset" / "manifest.json")
    pushed = {"md5": "0" * 32 + ".dir", "dataset_manifest_sha256": dataset_hash}
    write_json(run.paths.report("version.json"), with_sha256(pushed))
    result = register(run, run_id="run-17")
    assert json.loads(run.paths.report("registration.json").read_text(encoding="utf-8")) == {
        key: value for key, value in result.items() if key != "summary"
    }
    assert (result["version"], result["alias"], result["model_uri"]) == (1, "champion", f"models:/{NAME}/1")
    assert server.writes == WRITES_OF_A_VERSION
    (model,), (version,), (artifact,) = server.models.values(), server.versions.values(), server.artifacts.values()
    assert (model["name"], version["name"], artifact["name"]) == (NAME, "1", NAME)
    assert artifact["uri"] == result["package_uri"] == (tmp_path / "store" / NAME / result["package_sha256"]).as_uri()
    assert alias_of(server) == "1"
    wanted = {
        "ocrmem.package_sha256": result["package_sha256"],
        "ocrmem.adapter_sha256": result["adapter_sha256"],
        "ocrmem.data_sha256": "d" * 64,
        "ocrmem.dataset_manifest_sha256": dataset_hash,
        "ocrmem.dataset_dvc_md5": "0" * 32 + ".dir",
        "ocrmem.run_id": "run-17",
        "ocrmem.gate": "passed",
        "ocrmem.metric.memory.recall": 0.9,
        "ocrmem.metric.compression_ratio": 1.25,
    }
    assert {key: server.property_of(server.versions, "1", key) for key in wanted} == wanted
    verify_package(tmp_path / "store" / NAME / result["package_sha256"])
    assert any(result["package_uri"] in line for line in result["summary"])


def test_the_same_package_again_writes_nothing(run: RunConfig, server: ModelRegistryServer) -> None:
    first = register(run)
    written = len(server.writes)
    assert register(run) == first
    assert len(server.writes) == written


def test_more_versions_than_a_page_are_told_apart(run: RunConfig, server: ModelRegistryServer, tmp_path: Path) -> None:
    numbers = [register(finished(server, tmp_path, weights=bytes([n]) * 8))["version"] for n in range(5)]
    assert numbers == [1, 2, 3, 4, 5]
    assert register(finished(server, tmp_path, weights=bytes([1]) * 8))["version"] == 2
    assert len(server.versions) == 5


def test_a_failed_gate_registers_the_version_and_leaves_the_alias(
    run: RunConfig, server: ModelRegistryServer, tmp_path: Path
) -> None:
    register(run)
    worse = finished(server, tmp_path, weights=b"worse", recall=0.3)
    with pytest.raises(CheckFailed, match="version 2 is registered as failed") as caught:
        register(worse)
    assert caught.value.exit_code == 1
    assert alias_of(server) == "1"
    assert server.property_of(server.versions, "2", "ocrmem.gate") == "failed"
    assert json.loads(worse.paths.report("registration.json").read_text(encoding="utf-8"))["alias"] is None

    # A lower bound is a decision about the same version, not a new one.
    bounds = {"min_recall": 0.2, "max_shuffled_recall": 0.2, "max_no_memory_recall": 0.2}
    lowered = finished(server, tmp_path, weights=b"worse", recall=0.3, register={"gate": bounds})
    assert register(lowered)["version"] == 2
    assert alias_of(server) == "1"
    anyway = {"gate": bounds, "promote": "passed"}
    assert register(finished(server, tmp_path, weights=b"worse", recall=0.3, register=anyway))["alias"] == "champion"
    assert alias_of(server) == "2"
    assert server.property_of(server.versions, "2", "ocrmem.gate") == "passed"
    assert server.property_of(server.versions, "2", "ocrmem.metric.memory.recall") == 0.3


@pytest.mark.parametrize("cut", range(len(WRITES_OF_A_VERSION)))
def test_a_registration_that_is_cut_off_is_completed_and_not_repeated(
    run: RunConfig, server: ModelRegistryServer, cut: int
) -> None:
    """Cut off before each of the writes: the client's process does not come back from that call."""

    def killed(method: str, _: str) -> int | None:
        if method != "GET" and len(server.writes) > cut:
            raise ConnectionAbortedError
        return None

    server.broken = killed
    with pytest.raises(ConfigError):
        register(run)
    assert len(server.versions) == (1 if cut > 1 else 0)
    assert len(server.artifacts) == (1 if cut > 2 else 0)
    server.broken = lambda *_: None
    server.calls.clear()
    assert register(run)["version"] == 1
    assert server.writes == WRITES_OF_A_VERSION[cut:]
    assert (len(server.models), len(server.versions), len(server.artifacts)) == (1, 1, 1)
    assert alias_of(server) == "1"


def test_a_number_taken_in_the_same_moment_is_passed_over(run: RunConfig, server: ModelRegistryServer) -> None:
    register(run)
    (other,) = server.versions.values()

    def someone_else(method: str, path: str) -> int | None:
        if (method, path) == ("POST", "/model_versions") and len(server.versions) == 1:
            server.versions["99"] = {**other, "id": "99", "name": "2", "customProperties": {}}
        return None

    server.broken = someone_else
    assert register(finished(server, Path.cwd(), weights=b"second"))["version"] == 3


@pytest.mark.parametrize("by_itself", [True, False], ids=["found by its number", "not found for a while"])
def test_a_registry_that_lists_late_gets_no_second_version(
    run: RunConfig, server: ModelRegistryServer, tmp_path: Path, by_itself: bool
) -> None:
    register(run)
    server.late = 3
    server.late_by_itself = not by_itself
    second = finished(server, tmp_path, weights=b"second")
    assert register(second)["version"] == 2
    assert register(second)["version"] == 2
    assert len(server.versions) == 2


def test_a_version_that_is_never_shown_is_not_made_again(
    run: RunConfig, server: ModelRegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.late, server.late_by_itself = 1000, True
    for _ in range(2):
        with pytest.raises(ConfigError):
            register(run)
    assert len(server.versions) == 1
    server.late = 0
    assert register(run)["version"] == 1
    assert len(server.versions) == 1


def test_an_answer_that_got_lost_makes_no_second_version(run: RunConfig, server: ModelRegistryServer) -> None:
    seen: list[str] = []

    def made_but_not_told(method: str, path: str) -> int | None:
        if path.endswith("/artifacts") and not seen:
            seen.append(path)
            return 500
        return None

    server.broken = made_but_not_told
    assert register(run)["version"] == 1
    assert (len(server.versions), len(server.artifacts)) == (1, 1)


def test_properties_of_others_stay(run: RunConfig, server: ModelRegistryServer) -> None:
    register(run)
    (model,) = server.models.values()
    model["customProperties"]["team"] = {"metadataType": "MetadataStringValue", "string_value": "ours"}
    register(finished(server, Path.cwd(), weights=b"second", recall=0.95))
    assert server.property_of(server.models, NAME, "team") == "ours"
    assert alias_of(server) == "2"


@pytest.mark.parametrize("reference", [f"models:/{NAME}@champion", f"models:/{NAME}/1"])
def test_a_reference_gives_the_registered_files(run: RunConfig, tmp_path: Path, reference: str) -> None:
    register(run)
    found = resolve_adapter(reference, run)
    assert sha256_tree(found) == sha256_tree(tmp_path / "registry" / "package")
    shutil.rmtree(tmp_path / "store")
    assert resolve_adapter(reference, run) == found  # the copy beside the registry


@pytest.mark.parametrize("damage", ["damaged", "lost", "replaced by a link", "another package"])
def test_a_registry_that_does_not_hold_the_package_is_refused_and_register_puts_it_back(
    run: RunConfig, server: ModelRegistryServer, tmp_path: Path, damage: str
) -> None:
    stored = tmp_path / "store" / NAME / register(run)["package_sha256"]
    shutil.rmtree(tmp_path / "registry")
    weights = stored / "adapter.safetensors"
    if damage == "damaged":
        weights.write_bytes(b"tampered")
    elif damage == "lost":
        shutil.rmtree(stored)
    elif damage == "replaced by a link":
        weights.rename(tmp_path / "elsewhere")
        weights.symlink_to(tmp_path / "elsewhere")
    else:
        package_adapter(finished(server, tmp_path, weights=b"another"), stored)
        finished(server, tmp_path)
    with pytest.raises(ModelError) as caught:
        resolve_adapter(f"models:/{NAME}/1", run)
    said = {
        "damaged": "not what its provenance says: adapter.safetensors",
        "lost": "its package is not in the registry",
        "replaced by a link": "is a link out of its directory",
        "another package": "the registry says package",
    }
    assert said[damage] in str(caught.value)
    assert not list((tmp_path / "registry").glob("cache/*"))
    assert register(run)["version"] == 1
    verify_package(stored)
    verify_package(resolve_adapter(f"models:/{NAME}/1", run))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("models:/unknown@champion", "no unknown with the alias champion"),
        ("models:/unknown/1", "no unknown version 1"),
        (f"models:/{NAME}@absent", f"no {NAME} with the alias absent; its newest version is 1"),
        (f"models:/{NAME}/99", f"no {NAME} version 99"),
    ],
)
def test_a_reference_to_nothing_says_so(run: RunConfig, reference: str, message: str) -> None:
    register(run)
    with pytest.raises(ConfigError, match=message):
        resolve_adapter(reference, run)


def test_a_package_elsewhere_is_named(run: RunConfig, server: ModelRegistryServer) -> None:
    register(run)
    shutil.rmtree("registry")
    (artifact,) = server.artifacts.values()
    artifact["uri"] = "oci://registry.example.org/adapter:1"
    with pytest.raises(ConfigError, match=r"oci://.*which ocrmem cannot read"):
        resolve_adapter(f"models:/{NAME}/1", run)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "answers 401 Unauthorized. Set MODEL_REGISTRY_TOKEN"),
        (403, "answers 403 Forbidden. Give the token's account rights"),
        (404, "answers 404 Not Found: there is no model registry at that address"),
        (409, "answers 409 Conflict. Check the name"),
        (500, "answers 500 Internal Server Error. Look at the registry's log"),
    ],
)
@pytest.mark.parametrize("when", ["at first", "at a write"])
def test_a_refusal_is_one_readable_problem(
    run: RunConfig, server: ModelRegistryServer, status: int, message: str, when: str
) -> None:
    server.broken = lambda method, _: status if when == "at first" or method != "GET" else None
    with pytest.raises(ConfigError) as caught:
        register(run)
    assert len(caught.value.problems) == 1
    assert message in str(caught.value)
    assert not run.paths.report("registration.json").exists()


def test_what_is_no_registry_is_named(run: RunConfig, server: ModelRegistryServer) -> None:
    with pytest.raises(ConfigError, match="404"):
        register(run.model_copy(update={"registry": run.registry.model_copy(update={"uri": f"{server.uri}/else"})}))


def test_below_a_path_it_is_found(tmp_path: Path) -> None:
    with model_registry("/registry/one") as server:
        assert register(finished(server, tmp_path))["version"] == 1


def test_an_unreachable_registry_is_reported_within_seconds(run: RunConfig) -> None:
    section = run.registry.model_copy(update={"uri": "kubeflow+http://127.0.0.1:9"})
    elsewhere = run.model_copy(update={"registry": section})
    with pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:9 does not answer .*refused"):
        register(elsewhere)
    (problem,) = backend_of(elsewhere).problems(elsewhere)
    assert problem.place == "register.uri"


def test_the_token_is_used_and_never_shown(
    run: RunConfig,
    server: ModelRegistryServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server.token = TOKEN
    with pytest.raises(ConfigError, match="401"):
        register(run)
    monkeypatch.setenv("MODEL_REGISTRY_TOKEN", TOKEN + "x")
    with pytest.raises(ConfigError, match="403") as refused:
        register(run)
    monkeypatch.delenv("MODEL_REGISTRY_TOKEN")
    (tmp_path / "token").write_text(f"{TOKEN}\n", encoding="utf-8")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    with caplog.at_level(logging.DEBUG):
        assert register(run)["version"] == 1
    (tmp_path / "token").unlink()
    server.broken = lambda method, _: 403 if method == "PATCH" else None
    monkeypatch.setenv("MODEL_REGISTRY_TOKEN", TOKEN)
    with pytest.raises(ConfigError, match="403") as late:
        register(finished(server, tmp_path, weights=b"second", recall=0.95))
    written = "".join(path.read_text("utf-8", "replace") for path in tmp_path.rglob("*") if path.is_file())
    told = capfd.readouterr()
    assert TOKEN not in str(refused.value) + str(late.value) + caplog.text + told.out + told.err + written


def test_https_without_a_token_says_so_before_it_connects(run: RunConfig) -> None:
    section = run.registry.model_copy(update={"uri": "kubeflow+https://127.0.0.1:9"})
    with pytest.raises(ConfigError, match="needs a token, and there is none"):
        register(run.model_copy(update={"registry": section}))


def test_the_logging_of_the_process_is_left_alone(run: RunConfig, capfd: pytest.CaptureFixture[str]) -> None:
    before = list(logging.root.handlers)
    register(run)
    assert logging.root.handlers == before
    assert capfd.readouterr() == ("", "")


def test_problems_are_reported_of_the_registry_and_of_the_store_at_once(run: RunConfig, tmp_path: Path) -> None:
    assert backend_of(run).problems(run) == []
    (tmp_path / "store").rmdir()
    section = run.registry.model_copy(update={"uri": "kubeflow+http://127.0.0.1:9"})
    changed = run.model_copy(update={"registry": section})
    problems = backend_of(changed).problems(changed)
    assert [problem.place for problem in problems] == ["register.uri", "register.store"]


def test_packages_may_lie_in_a_bucket(server: ModelRegistryServer, tmp_path: Path, s3: S3Service) -> None:
    s3.make_bucket("kubeflow-packages")
    store = {"store": "s3://kubeflow-packages/adapters", "endpoint_url": s3.url}
    run = finished(server, tmp_path, register=store)
    assert backend_of(run).problems(run) == []
    # Cut off while the files go up: no version, and the next run begins with the files.
    s3.fault = lambda method, path: (403, "AccessDenied") if path.endswith("provenance.json") else None
    with pytest.raises(ConfigError, match=r"register\.store"):
        register(run)
    assert server.writes == []
    s3.reset()
    result = register(run)
    assert result["package_uri"] == f"s3://kubeflow-packages/adapters/{NAME}/{result['package_sha256']}"
    s3.reset()
    assert register(run) == result
    assert s3.writes == []
    verify_package(resolve_adapter(f"models:/{NAME}@champion", run))
    written = "".join(path.read_text("utf-8", "replace") for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET_KEY not in written + json.dumps([server.models, server.versions, server.artifacts])
