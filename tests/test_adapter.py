"""The adapter package: what is in it, what identifies it, and that a changed file is noticed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from support.registered import change_json, finished_run

from ocrmem.adapter import check_reports, git_state, package_adapter
from ocrmem.errors import CheckFailed, MissingInputError
from ocrmem.facts import PROVENANCE
from ocrmem.files import sha256_file, sha256_tree
from ocrmem.package import adapter_sha256, verify_package

FILES = {"adapter.safetensors", "config.json", "README.md", "provenance.json"}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    package_adapter(finished_run(tmp_path), tmp_path / "package")
    return tmp_path / "package"


def test_a_package_holds_the_four_files_and_the_hash_of_each(package: Path) -> None:
    assert {path.name for path in package.iterdir()} == FILES
    provenance = verify_package(package)
    assert provenance["files"] == {name: sha256_file(package / name) for name in FILES - {PROVENANCE}}
    assert provenance["data"]["source_sha256"] == "d" * 64
    assert provenance["gradient_report_sha256"] == sha256_file(package.parent / "smoke" / "report.json")
    assert provenance["metrics"]["memory"] == {"loss": 0.5, "recall": 0.9}
    assert "latency" not in provenance["metrics"]
    assert provenance["params"]["train"]["seed"] == 0
    assert provenance["versions"]["torch"]


def test_the_adapter_that_training_began_with_is_recorded_and_its_place_does_not_matter(tmp_path: Path) -> None:
    hashes = set()
    for place in ("here", "there"):
        config = finished_run(tmp_path, train={"from_adapter": place})
        change_json(config.paths.report("train.json"), from_adapter="a" * 64)
        provenance = package_adapter(config, tmp_path / "package")
        assert provenance["from_adapter"] == "a" * 64
        hashes.add(provenance["package_sha256"])
    assert len(hashes) == 1
    assert "a" * 64 in (tmp_path / "package" / "README.md").read_text(encoding="utf-8")


def test_packaging_leaves_the_trained_adapter_as_it_was(tmp_path: Path) -> None:
    config = finished_run(tmp_path)
    before = sha256_tree(tmp_path / "adapter")
    package_adapter(config, tmp_path / "package")
    assert sha256_tree(tmp_path / "adapter") == before == adapter_sha256(tmp_path / "package")


def test_the_card_tells_base_encoder_metrics_and_limits(package: Path) -> None:
    card = (package / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert 'base_model: "tiny"' in card
    assert "| memory | 0.5000 | 0.900 |" in card
    assert "| no_memory | 2.0000 | 0.100 |" in card
    assert "1.25 history text tokens" in card
    assert "embedded demonstration" in card
    assert "MEMModel.from_pretrained" in card


def test_the_package_hash_follows_what_the_adapter_is_and_nothing_else(tmp_path: Path) -> None:
    def packaged(**sections: dict) -> str:
        return package_adapter(finished_run(tmp_path, **sections), tmp_path / "package")["package_sha256"]

    first = packaged()
    assert packaged() == first
    assert packaged(register={"gate": {"min_recall": 0.99}}, tracking={"project": "other"}) == first
    assert packaged(data={"path": "elsewhere", "workers": 3}, paths={"tracking": "elsewhere"}) == first
    assert packaged(train={"seed": 1}) != first
    config = finished_run(tmp_path, weights=b"other weights")
    assert package_adapter(config, tmp_path / "package")["package_sha256"] != first
    config = finished_run(tmp_path)
    change_json(config.paths.report("evaluation.json"), latency={"memory": {"total": 9.9}})
    assert package_adapter(config, tmp_path / "package")["package_sha256"] == first
    change_json(config.paths.report("evaluation.json"), memory={"loss": 0.4, "recall": 0.9})
    assert package_adapter(config, tmp_path / "package")["package_sha256"] != first


@pytest.mark.parametrize(
    ("missing", "verb"),
    [
        ("adapter/config.json", "train"),
        ("dataset/manifest.json", "render"),
        ("reports/evaluation.json", "evaluate"),
        ("smoke/report.json", "smoke"),
    ],
)
def test_what_is_missing_names_the_verb_that_makes_it(tmp_path: Path, missing: str, verb: str) -> None:
    config = finished_run(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(MissingInputError, match=f"ocrmem {verb}"):
        package_adapter(config, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_reports_that_agree_pass(tmp_path: Path) -> None:
    config = finished_run(tmp_path)
    check_reports(config)
    # An imported adapter was not trained here.
    config.paths.report("train.json").unlink()
    check_reports(config)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("smoke/report.json", {"ok": False}, "smoke test did not pass"),
        ("reports/evaluation.json", {"adapter_sha256": "0" * 64}, "about the adapter 000000000000"),
        ("reports/train.json", {"adapter_sha256": "0" * 64}, "Run `ocrmem train` again"),
    ],
)
def test_reports_about_something_else_are_refused(tmp_path: Path, file: str, changes: dict, message: str) -> None:
    config = finished_run(tmp_path)
    change_json(tmp_path / file, **changes)
    with pytest.raises(CheckFailed, match=message):
        check_reports(config)


def test_all_faults_of_the_reports_are_listed_together(tmp_path: Path) -> None:
    config = finished_run(tmp_path)
    change_json(tmp_path / "smoke" / "report.json", ok=False)
    (tmp_path / "adapter" / "adapter.safetensors").write_bytes(b"retrained")
    with pytest.raises(CheckFailed) as caught:
        check_reports(config)
    assert len(caught.value.problems) == 3


def test_git_state_tells_the_commit_and_local_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state() == {"commit": None, "dirty": None}
    identity = {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    (tmp_path / "file").write_text("1", encoding="utf-8")
    for command in (["init", "-q"], ["add", "file"], ["-c", "core.hooksPath=", "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *command], check=True, env=os.environ | identity, capture_output=True)
    state = git_state()
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tmp_path / "file").write_text("2", encoding="utf-8")
    assert git_state() == {"commit": state["commit"], "dirty": True}


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() == {"commit": None, "dirty": None}


def test_params_in_the_package_hold_no_password(tmp_path: Path) -> None:
    config = finished_run(tmp_path)
    section = config.registry.model_copy(update={"uri": "https://me:hunter2@mlflow.example.org"})
    package_adapter(config.model_copy(update={"registry": section}), tmp_path / "package")
    for path in (tmp_path / "package").iterdir():
        assert b"hunter2" not in path.read_bytes()
    provenance = json.loads((tmp_path / "package" / PROVENANCE).read_text(encoding="utf-8"))
    assert provenance["params"]["register"]["uri"] == "(hidden)"
