"""The commands in the manifests are real ones: Argo's run here, one after the other; the others are parsed."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support import manifests
from support.dockerfile import Dockerfile
from support.manifests import K8S, ROOT, Object

from ocrmem.cli import build_parser, main
from ocrmem.config import RunConfig

[WORKFLOW] = manifests.documents(K8S / "argo" / "smoke-test.yaml")
SPEC = WORKFLOW["spec"]
TEMPLATES = {template["name"]: template for template in SPEC["templates"]}
PARAMETERS = {one["name"]: one["value"] for one in SPEC["arguments"]["parameters"]}
NAME = "ocrmem-smoke-test-x7k2"


def steps() -> list[str]:
    """The templates in the order in which Argo runs them, one at a time."""
    groups = TEMPLATES[SPEC["entrypoint"]]["steps"]
    assert all(len(group) == 1 for group in groups)
    return [group[0]["template"] for group in groups]


def command(container: Object) -> list[str]:
    """What runs in a container, with Argo's variables replaced."""
    values = {f"workflow.parameters.{name}": value for name, value in PARAMETERS.items()} | {"workflow.name": NAME}
    words = [*container["command"], *container.get("args", [])]
    filled = [re.sub(r"\{\{([^}]+)\}\}", lambda match: values[match[1]], word) for word in words]
    assert not any("{{" in word for word in filled)
    return filled


def test_the_steps_are_those_of_the_pipeline_of_the_same_name() -> None:
    tree = ast.parse((ROOT / "pipelines" / "smoke_test.py").read_text(encoding="utf-8"))
    [names] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STEPS"
    ]
    assert steps() == ["slice", *names]
    assert set(TEMPLATES) == {*steps(), SPEC["entrypoint"]}


def test_files_that_it_names_are_in_the_image() -> None:
    copied = {
        one.body.split()[-1].rstrip("/"): one.body.split()[0] for one in Dockerfile(ROOT / "Dockerfile").all("COPY")
    }
    assert copied[PARAMETERS["conversations"]] == "samples/conversations"
    assert PARAMETERS["config"] == "/workspace/params.yaml"
    assert copied["/workspace"] == "params.yaml"


@pytest.mark.slow
def test_the_workflows_commands_run_and_leave_a_report_on_the_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {
        "/workspace/params.yaml": str(ROOT / "params.yaml"),
        "/workspace/data": str(ROOT / "samples" / "conversations"),
        "/workspace/output": str(tmp_path / "output"),
    }
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "output").mkdir()
    monkeypatch.chdir(run)
    for step in steps():
        container = TEMPLATES[step]["container"]
        assert container["workingDir"] == "/workspace/run"
        words = command(container)
        for there, place in here.items():
            words = [word.replace(there, place) for word in words]
        if words[0] == "ocrmem":
            assert main([*words[1:], "--quiet"]) == 0, step
        else:
            subprocess.run(words, check=True)
    [report] = (tmp_path / "output").rglob("report.json")
    assert report.parent == tmp_path / "output" / "smoke" / NAME
    assert report.with_suffix(".html").is_file()
    assert json.loads(report.read_text(encoding="utf-8"))["ok"] is True
    assert len((run / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()) == int(PARAMETERS["slice"])
    # What two verbs share lies on the volume that the steps share.
    assert {path.name for path in run.iterdir()} == {"data", "models", "dataset", "features", "validation.json"}


def test_a_slice_of_nothing_fails(tmp_path: Path) -> None:
    words = [
        word.replace(PARAMETERS["conversations"], str(tmp_path)) for word in command(TEMPLATES["slice"]["container"])
    ]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode != 0
    shutil.rmtree(tmp_path / "data")


def preparing() -> list[list[str]]:
    [job] = manifests.documents(K8S / "overlays" / "dev" / "prepare" / "job.yaml")
    [pod] = manifests.pods_of(job)
    return [container["command"] for container in pod.containers]


def test_the_preparing_jobs_commands_write_what_the_dev_trainjob_reads() -> None:
    parsed = [build_parser().parse_args(words[1:]) for words in preparing()]
    assert [one.verb for one in parsed] == ["base", "render", "encode"]
    written = [RunConfig.load(ROOT / one.config, one.set).paths for one in parsed]
    [job] = manifests.documents(K8S / "overlays" / "dev" / "trainjob" / "trainjob.yaml")
    text = json.dumps(job)
    for one in written:
        assert f"models: {one.models}\\n" in text
    assert f"dataset: {written[1].dataset}\\n" in text
    assert written[2].dataset == written[1].dataset
    assert f"features: {written[2].features}\\n" in text


def test_what_a_verb_replaces_as_a_whole_is_no_mount_point() -> None:
    """`render` and `encode` move a finished directory into place, which fails on a mount (EBUSY)."""
    [job] = manifests.documents(K8S / "overlays" / "dev" / "prepare" / "job.yaml")
    [pod] = manifests.pods_of(job)
    for container in pod.containers:
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        parsed = build_parser().parse_args(container["command"][1:])
        paths = RunConfig.load(ROOT / parsed.config, parsed.set).paths
        written = {"base": str(paths.base_model), "render": paths.dataset, "encode": paths.features}[parsed.verb]
        assert written not in mounts
        assert any(Path(written).is_relative_to(mount) for mount in mounts)


def test_the_nightly_run_starts_the_same_template() -> None:
    [cron] = manifests.documents(K8S / "argo" / "nightly.yaml")
    assert cron["spec"]["workflowSpec"] == {"workflowTemplateRef": {"name": WORKFLOW["metadata"]["name"]}}
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    for schedule in cron["spec"]["schedules"]:
        assert len(schedule.split()) == 5
