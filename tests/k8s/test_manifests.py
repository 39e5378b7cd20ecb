"""Every manifest is held against its API, every kustomization builds, and every name leads to something."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import manifests
from support.manifests import BUILDABLE, K8S, KUSTOMIZATIONS, OVERLAYS, Object, Pod

from ocrmem.config import PLACEHOLDER_IMAGE

# Made by Kubeflow Pipelines, where that is installed.
FOREIGN = {("ServiceAccount", "default-editor"), ("ServiceAccount", "pipeline-runner")}
needs_kubectl = pytest.mark.skipif(not manifests.has_kubectl(), reason="kubectl is not there")


def path_id(path: Any) -> str:
    return path.relative_to(K8S).as_posix() if isinstance(path, Path) else str(path)


def everything(overlay: Path) -> list[Object]:
    """All that can be in the cluster with one overlay: it, what lies below it, and k8s/argo."""
    parts = [path for path in BUILDABLE if path.is_relative_to(overlay)] + [K8S / "argo"]
    return [thing for part in parts for thing in manifests.built(part)]


@pytest.mark.parametrize("path", manifests.resource_files(), ids=path_id)
def test_every_file_is_what_its_api_takes(path: Path) -> None:
    things = manifests.documents(path)
    assert things
    for thing in things:
        manifests.validate(thing)


@needs_kubectl
@pytest.mark.parametrize("directory", BUILDABLE, ids=path_id)
def test_every_kustomization_builds_what_its_api_takes(directory: Path) -> None:
    for thing in manifests.built(directory):
        manifests.validate(thing, versions=manifests.KUBERNETES[-1:])


def test_no_manifest_is_forgotten_and_no_listed_one_is_missing() -> None:
    listed: set[Path] = set()
    for directory in KUSTOMIZATIONS:
        values = manifests.kustomization(directory)
        names = [*values.get("resources", []), *values.get("components", []), *values.get("configurations", [])]
        names += [patch["path"] for patch in values.get("patches", []) if "path" in patch]
        for name in names:
            assert (directory / name).exists(), f"{directory}: {name}"
            listed.add((directory / name).resolve())
    there = {
        path for path in K8S.rglob("*.yaml") if path.name != "kustomization.yaml" and path.parent.name != "examples"
    }
    assert there <= listed, f"in no kustomization: {sorted(map(str, there - listed))}"


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("base/volumes.yaml", "spec.accessMode", ["ReadWriteMany"]),
        ("base/network.yaml", "spec.podSelectors", {}),
        ("base/runtime.yaml", "spec.mlPolicy.torch.numProcPerNode", "auto"),
        ("base/runtime.yaml", "spec.template.spec.replicatedJobs.0.template.spec.backOffLimit", 1),
        ("base/runtime.yaml", "spec.template.spec.replicatedJobs.0.template.spec.template.spec.containers.0.imag", "x"),
        ("argo/smoke-test.yaml", "spec.retryStrategies", {}),
        ("argo/smoke-test.yaml", "spec.templates.1.container.volumeMount", []),
        ("argo/nightly.yaml", "spec.schedule", "* * * * *"),
        ("overlays/dev/trainjob/trainjob.yaml", "spec.trainer.nodes", 2),
    ],
)
def test_a_misspelt_field_is_found(file: str, path: str, value: Any) -> None:
    thing = copy.deepcopy(manifests.documents(K8S / file)[0])
    *parents, last = path.split(".")
    place: Any = thing
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[last] = value
    with pytest.raises(Exception, match=last):
        manifests.validate(thing)


@needs_kubectl
def test_the_image_is_set_in_one_place(tmp_path: Path) -> None:
    copied = tmp_path / "k8s"
    shutil.copytree(K8S, copied)
    component = copied / "components" / "image" / "kustomization.yaml"
    repository, _, tag = PLACEHOLDER_IMAGE.rpartition(":")
    text = component.read_text(encoding="utf-8")
    for old, new in ((f"newName: {repository}", "newName: real.example.com/me/memory"), (f'"{tag}"', '"2.0"')):
        assert text.count(old) == 1
        text = text.replace(old, new)
    component.write_text(text, encoding="utf-8")
    images: set[str] = set()
    for directory in BUILDABLE:
        if directory != K8S / "base":
            for thing in manifests.built(copied / directory.relative_to(K8S)):
                images |= {c["image"] for pod in manifests.pods_of(thing) for c in pod.containers}
                images |= {thing["spec"]["trainer"]["image"]} if thing["kind"] == "TrainJob" else set()
    assert {image for image in images if "mlflow" not in image} == {"real.example.com/me/memory:2.0"}


def pods(things: list[Object]) -> list[Pod]:
    [runtime] = manifests.of_kind(things, "ClusterTrainingRuntime")
    jobs = [manifests.training_pod(job, runtime) for job in manifests.of_kind(things, "TrainJob")]
    return [pod for thing in things for pod in manifests.pods_of(thing)] + jobs


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS, ids=path_id)
def test_every_name_leads_to_something(overlay: Path) -> None:
    things = everything(overlay)
    there = {manifests.identity(thing) for thing in things}
    assert len(there) == len(things), "two objects of one kind and name"
    [secret] = manifests.documents(K8S / "examples" / "secret.example.yaml")
    for pod in pods(things):
        pod.validate(manifests.KUBERNETES[-1:])
        assert ("ServiceAccount", pod.spec["serviceAccountName"]) in there, pod.owner
        volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        assert len(volumes) == len(pod.spec["volumes"])
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or claim.startswith("made-") or ("PersistentVolumeClaim", claim) in there, pod.owner
        for container in pod.containers:
            mounts = container["volumeMounts"]
            assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
            assert {mount["name"] for mount in mounts} <= set(volumes), pod.owner
            for variable in container.get("env", []):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                if reference:
                    assert reference["name"] == secret["metadata"]["name"]
                    assert reference["key"] in secret["stringData"], "document it in secret.example.yaml"
                    assert reference["optional"], "a run that needs no key must start without one"
    for thing in things:
        kind, name = manifests.identity(thing)
        if kind in ("RoleBinding", "ClusterRoleBinding"):
            assert (thing["roleRef"]["kind"], thing["roleRef"]["name"]) in there
            assert {(subject["kind"], subject["name"]) for subject in thing["subjects"]} <= there | FOREIGN
        if kind == "TrainJob":
            assert (thing["spec"]["runtimeRef"]["kind"], thing["spec"]["runtimeRef"]["name"]) in there
        if kind == "CronWorkflow":
            assert ("WorkflowTemplate", thing["spec"]["workflowSpec"]["workflowTemplateRef"]["name"]) in there
        if kind == "Service":
            assert any(thing["spec"]["selector"].items() <= pod.labels.items() for pod in pods(things)), name


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS, ids=path_id)
def test_everything_is_in_one_namespace_and_cluster_objects_are_in_none(overlay: Path) -> None:
    cluster = {"Namespace", "ClusterRole", "ClusterRoleBinding", "ClusterTrainingRuntime"}
    for thing in everything(overlay):
        expected = None if thing["kind"] in cluster else "ocrmem"
        assert thing["metadata"].get("namespace") == expected, manifests.identity(thing)


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS, ids=path_id)
def test_pods_on_several_nodes_share_volumes_that_several_nodes_can_mount(overlay: Path) -> None:
    nodes = 1 if overlay.name == "dev" else 2
    mode = "ReadWriteOnce" if nodes == 1 else "ReadWriteMany"
    for claim in manifests.of_kind(manifests.built(overlay), "PersistentVolumeClaim"):
        expected = "ReadWriteOnce" if claim["metadata"]["name"] == "ocrmem-mlflow" else mode
        assert claim["spec"]["accessModes"] == [expected]


@needs_kubectl
def test_the_step_between_the_overlays_is_written_down() -> None:
    """A claim's class and access modes are immutable, so `kubectl apply` of one overlay over the other is refused."""
    claims = [manifests.of_kind(manifests.built(overlay), "PersistentVolumeClaim") for overlay in OVERLAYS]
    dev, gpu = ({one["metadata"]["name"]: one["spec"] for one in found} for found in claims)
    changed = [name for name in dev if name in gpu and dev[name] != gpu[name]]
    [command] = re.findall(r"kubectl -n ocrmem delete pvc (.*)", (manifests.ROOT / "docs" / "cluster.md").read_text())
    assert set(changed) <= set(command.split())


@needs_kubectl
def test_the_quota_admits_the_example_and_the_dev_overlay_takes_no_gpu() -> None:
    for overlay, gpus in zip(OVERLAYS, (0, 8), strict=True):
        things = everything(overlay)
        [quota] = manifests.of_kind(things, "ResourceQuota")
        assert int(quota["spec"]["hard"]["requests.nvidia.com/gpu"]) == gpus
        [job] = manifests.of_kind(things, "TrainJob")
        trainer = job["spec"]["trainer"]
        assert int(trainer["resourcesPerNode"]["requests"].get("nvidia.com/gpu", 0)) * trainer["numNodes"] == gpus


def test_kueues_example_is_whole_and_covers_all_that_a_job_asks_for() -> None:
    things = manifests.documents(K8S / "examples" / "kueue.example.yaml")
    assert {thing["apiVersion"] for thing in things} == {"kueue.x-k8s.io/v1beta2"}
    named = {thing["kind"]: thing for thing in things}
    queue = named["ClusterQueue"]
    assert named["LocalQueue"]["spec"]["clusterQueue"] == queue["metadata"]["name"]
    assert named["LocalQueue"]["metadata"]["namespace"] == "ocrmem"
    [group] = queue["spec"]["resourceGroups"]
    [flavor] = group["flavors"]
    assert flavor["name"] == named["ResourceFlavor"]["metadata"]["name"]
    assert [quota["name"] for quota in flavor["resources"]] == group["coveredResources"]
    [job] = manifests.documents(K8S / "overlays" / "gpu-8" / "trainjob" / "trainjob.yaml")
    runtimes = manifests.documents(K8S / "base" / "runtime.yaml")
    asked = set(job["spec"]["trainer"]["resourcesPerNode"]["requests"])
    asked |= {name for pod in pods(runtimes) for one in pod.containers for name in one["resources"]["requests"]}
    assert asked == set(group["coveredResources"])


def test_no_image_floats() -> None:
    for path in manifests.resource_files():
        for image in re.findall(r"image: (\S+)", path.read_text(encoding="utf-8")):
            tag = image.rpartition(":")[2]
            assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag), f"{path}: {image}"
