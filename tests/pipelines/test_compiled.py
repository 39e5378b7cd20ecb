"""The compiled files in git: the same bytes when compiled again, strictly valid, and with what a cluster needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError
from ocrmem.steps import TASKS
from ocrmem.workflow.compile_settings import PipelineSettings, load_settings
from ocrmem.workflow.compiled import Package, list_pipelines, open_package, pipeline_names
from ocrmem.workflow.compiling import compile_pipeline, compile_pipelines
from ocrmem.workflow.tasks import handed_settings

ROOT = Path(__file__).resolve().parents[2]
PIPELINES = ROOT / "pipelines"
NAMES = ["adapter_training", "smoke_test"]
GPU, NETWORK, CACHED = (
    {step.component.replace("_", "-") for step in TASKS.values() if step.component and getattr(step, trait)}
    for trait in ("gpu", "network", "cached")
)


@pytest.fixture(params=NAMES)
def package(request: pytest.FixtureRequest) -> Package:
    return open_package(request.param, PIPELINES)


def tasks(package: Package) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tasks that run a container, with their specification."""
    specification = package.documents[0]
    for group in (specification["root"], *specification["components"].values()):
        for name, task in group.get("dag", {}).get("tasks", {}).items():
            if "executorLabel" in specification["components"][task["componentRef"]["name"]]:
                yield name, task


def executors(package: Package) -> dict[str, dict[str, Any]]:
    return package.documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.mark.slow
def test_compiling_again_gives_the_files_in_git_whatever_the_hash_seed(tmp_path: Path) -> None:
    for seed, name in enumerate(NAMES):
        output = tmp_path / f"{name}.yaml"
        subprocess.run(
            [sys.executable, "-m", "ocrmem", "pipeline", "compile", name, "--output", str(output)],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": str(seed + 1)},
            check=True,
            capture_output=True,
            timeout=300,
        )
        assert output.read_bytes() == (PIPELINES / f"{name}.yaml").read_bytes(), (
            "run `ocrmem pipeline compile` and commit what it writes"
        )


def test_both_documents_parse_strictly(package: Package) -> None:
    specification, platform = package.documents
    json_format.ParseDict(specification, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    for executor in executors(package).values():
        json_format.ParseDict(executor, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


def test_the_strict_parser_would_notice_a_field_that_is_none() -> None:
    package = open_package(NAMES[0], PIPELINES)
    next(iter(tasks(package)))[1]["retryPolice"] = {}
    with pytest.raises(json_format.ParseError, match="retryPolice"):
        json_format.ParseDict(package.documents[0], pipeline_spec_pb2.PipelineSpec())


def test_every_input_that_a_task_takes_from_its_group_is_handed_down(package: Package) -> None:
    """kfp compiles a GPU parameter into tasks of a group without handing it to the group; a run fails there."""
    specification = package.documents[0]
    for component in specification["components"].values():
        declared = component.get("inputDefinitions", {}).get("parameters", {})
        for task in component.get("dag", {}).get("tasks", {}).values():
            for value in task.get("inputs", {}).get("parameters", {}).values():
                name = value.get("componentInputParameter")
                assert name is None or name in declared


def test_tasks_run_one_after_the_other_so_that_none_runs_past_a_failure(package: Package) -> None:
    specification = package.documents[0]
    body = specification["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    before = {name: set(task.get("dependentTasks", [])) for name, task in body.items()}
    done: set[str] = set()
    while len(done) < len(body):
        ready = [name for name in body if name not in done and before[name] <= done]
        assert len(ready) == 1, ready
        done.add(ready[0])


def test_what_is_cached_and_what_is_tried_again() -> None:
    package = open_package("adapter_training", PIPELINES)
    found = dict(tasks(package))
    cached = {name for name, task in found.items() if task["cachingOptions"].get("enableCache")}
    retried = {name for name, task in found.items() if task.get("retryPolicy", {}).get("maxRetryCount")}
    assert cached == CACHED
    assert retried == NETWORK


def test_every_pod_is_placed_as_the_namespace_asks(package: Package) -> None:
    found = executors(package)
    assert {name.removeprefix("exec-") for name in found} == {name for name, _ in tasks(package)}
    for name, executor in found.items():
        assert executor["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
        assert int(executor["activeDeadlineSeconds"]) > 0, name
        assert executor["podMetadata"]["labels"]["app.kubernetes.io/part-of"] == "ocrmem"
        [secret] = executor["secretAsEnv"]
        assert secret["optional"] is True
        assert "WANDB_API_KEY" in {key["secretKey"] for key in secret["keyToEnv"]}
        assert {mount["mountPath"] for mount in executor["pvcMount"]} == {"/workspace/output", "/workspace/models"}
        on_gpu = name.removeprefix("exec-") in GPU
        assert ("/dev/shm" in {mount["mountPath"] for mount in executor["emptyDirMounts"]}) == on_gpu
        assert ("tolerations" in executor) == ("nodeSelector" in executor) == on_gpu


def test_gpus_and_image_are_parameters(package: Package) -> None:
    containers = {
        name.removeprefix("exec-"): executor["container"]
        for name, executor in package.documents[0]["deploymentSpec"]["executors"].items()
    }
    for name, container in containers.items():
        assert "image" in re.findall(r"parameters\['(?:pipelinechannel--)?(\w+)'\]", container["image"]), name
        accelerator = container["resources"].get("accelerator")
        assert (accelerator is not None) == (name in GPU)
        if accelerator:
            assert "pipelinechannel--gpus" in accelerator["resourceCount"]
            assert "pipelinechannel--gpu_type" in accelerator["resourceType"]


def test_compile_time_settings_reach_the_file(tmp_path: Path) -> None:
    chosen = tmp_path / "settings.yaml"
    chosen.write_text(
        "storage_class: fast\noutput_claim: null\ndata_claim: my-conversations\nretries: 0\nlabels: {team: memory}\n",
        encoding="utf-8",
    )
    settings = load_settings(chosen, ["image=ghcr.io/me/ocrmem:1", "train_timeout=60"])
    compile_pipeline("smoke_test", settings, PIPELINES, tmp_path / "mine.yaml")
    package = open_package(str(tmp_path / "mine.yaml"), PIPELINES)
    assert package.parameters["image"]["defaultValue"] == "ghcr.io/me/ocrmem:1"
    assert not [name for name, task in tasks(package) if task.get("retryPolicy")]
    for executor in executors(package).values():
        assert executor["podMetadata"]["labels"] == {"team": "memory"}
        assert {mount["mountPath"] for mount in executor["pvcMount"]} == {"/workspace/data", "/workspace/models"}
        assert "fieldPathAsEnv" not in executor, "without a volume there is no place for records"
        assert [(volume["mountPath"], volume["storageClassName"]) for volume in executor["genericEphemeralVolume"]] == [
            ("/tmp", "fast")
        ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("storage_klass=fast", "is an unknown field. Did you mean storage_class?"),
        ("max_steps=3", "is an unknown field. Remove it; known here are image, "),
        ("retries=-1", "is -1. Give a number at least 0"),
        ("memory=lots", "is 'lots'. Write a quantity as Kubernetes does: 4 or 500m for CPU, 32Gi for memory"),
        ("memory=-1Gi", "Write a quantity"),
        ("data_claim=My_Claim", "is 'My_Claim'. Use lower-case letters, digits, - and ."),
        ("launcher=slurm", "is 'slurm'. Use one of 'local', 'kubernetes'"),
        ("image", "not key.path=value"),
    ],
)
def test_wrong_compile_time_settings_are_named(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as refused:
        load_settings(None, [given])
    assert refused.value.problems[0].place == f"--set {given.partition('=')[0]}"


@pytest.mark.parametrize(
    ("overrides", "cpu", "memory"),
    [
        (["cpu=4", "memory=1Pi"], "4", "1Pi"),
        (["cpu=0.5", "memory=1.5Gi"], "0.5", "1610612736"),
        (["cpu=500m", "memory=8k"], "500m", "8000"),
        (["cpu=1k", "memory=2e9"], "1000", "2000000000"),
    ],
)
def test_any_quantity_of_kubernetes_compiles(overrides: list[str], cpu: str, memory: str, tmp_path: Path) -> None:
    compile_pipeline("smoke_test", load_settings(None, overrides), PIPELINES, tmp_path / "mine.yaml")
    package = open_package(str(tmp_path / "mine.yaml"), PIPELINES)
    task = package.documents[0]["deploymentSpec"]["executors"]["exec-validate-config"]
    resources = task["container"]["resources"]
    assert (resources["resourceCpuRequest"], resources["resourceMemoryRequest"]) == (cpu, memory)


def test_list_names_the_pipelines_and_what_they_take() -> None:
    listed = list_pipelines(PIPELINES)
    assert [pipeline["name"] for pipeline in listed["pipelines"]] == NAMES == pipeline_names(PIPELINES)
    smoke = listed["pipelines"][1]["parameters"]
    assert smoke["conversations"] == 16
    assert {
        "params",
        "overrides",
        "data",
        "image",
        "secret",
        "gpus",
        "gpu_type",
        "tolerations",
        "node_selector",
    } <= set(smoke)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("gpu=1", "is not a parameter of smoke_test"),
        ("conversations=many", "type NUMBER_INTEGER"),
        ("tolerations={}", "type LIST"),
        ("gpus", "is not a parameter"),
    ],
)
def test_wrong_parameters_are_named_before_anything_runs(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_package("smoke_test", PIPELINES).values([given])


def test_parameters_are_read_by_their_type() -> None:
    given = ["gpus=8", "conversations=3", 'tolerations=[{"key": "gpu"}]', 'node_selector={"a": "b"}', "data=s3://b/c"]
    assert open_package("smoke_test", PIPELINES).values(given) == {
        "gpus": "8",
        "conversations": 3,
        "tolerations": [{"key": "gpu"}],
        "node_selector": {"a": "b"},
        "data": "s3://b/c",
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda directory: open_package("nope", PIPELINES), "nope.yaml: is not there"),
        (lambda directory: open_package("smoke_test", directory), "is not a folder of pipelines"),
        (lambda directory: open_package(str(directory / "odd.yaml"), PIPELINES), "is not a compiled pipeline"),
        (lambda directory: open_package(str(directory / "broken.yaml"), PIPELINES), "is not valid YAML"),
        (lambda directory: compile_pipeline("nope", PipelineSettings(), PIPELINES, None), "nope.py: is not there"),
        (lambda directory: compile_pipeline("chain", PipelineSettings(), PIPELINES, None), "makes no pipeline"),
        (
            lambda directory: compile_pipelines(
                None, settings=None, overrides=[], directory=PIPELINES, output=directory / "one.yaml"
            ),
            "all pipelines",
        ),
    ],
)
def test_what_is_not_there_is_named(make: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("a: 1\n", encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("a: [\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        make(tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("qwen*.yaml")), ids=lambda path: path.stem)
def test_what_a_task_is_handed_holds_by_itself(path: Path) -> None:
    whole = RunConfig.load(path, ["train.seed=7", "evaluate.max_new_tokens=5"])
    for name, step in TASKS.items():
        part = RunConfig.from_dict(json.loads(handed_settings(whole, name)))
        for setting in {*step.settings, *step.other_settings} - {"*"}:
            section, _, field = setting.partition(".")
            wanted, found = whole.as_dict()[section], part.as_dict()[section]
            assert (found[field] == wanted[field]) if field else (found == wanted), f"{name}: {setting}"
        if "*" in {*step.settings, *step.other_settings}:
            assert part.as_dict() == whole.as_dict() | {"paths": part.as_dict()["paths"]}
        if name in ("smoke", "evaluate"):
            assert part.train.objectives() == whole.train.objectives(), "a batch of each is checked, or asked to read"
