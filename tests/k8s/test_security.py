"""Pods are admitted under Pod Security "restricted" and can write where they must; no right, no opening, no secret more
than is used."""

from __future__ import annotations

import copy
import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
from support import manifests, restricted
from support.dockerfile import Dockerfile
from support.manifests import BUILDABLE, K8S, ROOT, Object, Pod

from ocrmem.cluster.permissions import ACCESS_REVIEWS, PERMISSIONS
from ocrmem.config import RunConfig
from ocrmem.secrets import find_in_text

RAW = [thing for path in manifests.resource_files() for thing in manifests.documents(path)]
[RUNTIME] = manifests.of_kind(RAW, "ClusterTrainingRuntime")
PODS = [pod for thing in RAW for pod in manifests.pods_of(thing)] + [
    manifests.training_pod(job, RUNTIME) for job in manifests.of_kind(RAW, "TrainJob")
]
[NODE] = [pod for pod in PODS if pod.owner.startswith("ClusterTrainingRuntime")]
UID = 10001


def by_owner(pod: Any) -> str:
    return pod.owner if isinstance(pod, Pod) else str(pod)


def test_the_namespace_enforces_what_is_tested_here() -> None:
    [namespace] = manifests.of_kind(RAW, "Namespace")
    labels = namespace["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"


@pytest.mark.parametrize("pod", PODS, ids=by_owner)
def test_a_pod_is_admitted_under_restricted(pod: Pod) -> None:
    assert restricted.violations(pod.spec) == []


@pytest.mark.skipif(not manifests.has_kubectl(), reason="kubectl is not there")
def test_no_overlay_loosens_a_pod() -> None:
    for directory in BUILDABLE:
        for thing in manifests.built(directory):
            for pod in manifests.pods_of(thing):
                assert restricted.violations(pod.spec) == [], pod.owner


@pytest.mark.parametrize(
    ("place", "field", "value", "expected"),
    [
        ("pod", "hostNetwork", True, "hostNetwork"),
        ("pod", "volumes", [{"name": "x", "hostPath": {"path": "/"}}], "volume x"),
        ("pod", "securityContext", {"runAsNonRoot": True}, "seccompProfile"),
        ("pod", "securityContext", {"seccompProfile": {"type": "RuntimeDefault"}}, "runAsNonRoot"),
        ("container", "allowPrivilegeEscalation", None, "allowPrivilegeEscalation"),
        ("container", "privileged", True, "privileged"),
        ("container", "runAsUser", 0, "runAsUser 0"),
        ("container", "capabilities", {"drop": ["NET_RAW"]}, "capabilities"),
        ("container", "capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}, "capabilities"),
        ("container", "seccompProfile", {"type": "Unconfined"}, "seccompProfile"),
    ],
)
def test_what_restricted_forbids_is_found(place: str, field: str, value: Any, expected: str) -> None:
    spec = copy.deepcopy(NODE.spec)
    target = spec if place == "pod" else spec["containers"][0]["securityContext"]
    target[field] = value
    assert any(expected in fault for fault in restricted.violations(spec))


@pytest.mark.parametrize("pod", PODS, ids=by_owner)
def test_a_pod_runs_as_the_images_user_on_a_read_only_root_with_bounded_resources(pod: Pod) -> None:
    security = pod.spec["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (UID, UID, UID)
    for container in pod.containers:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][bound])
    for volume in pod.spec["volumes"]:
        if "emptyDir" in volume:
            assert "sizeLimit" in volume["emptyDir"], f"{pod.owner}: {volume['name']} could fill the node"


@pytest.mark.parametrize("pod", PODS, ids=by_owner)
def test_only_workflow_pods_get_a_token_of_the_api_server(pod: Pod) -> None:
    assert pod.spec.get("automountServiceAccountToken") is (None if "Workflow" in pod.owner else False)


@pytest.mark.parametrize("pod", [pod for pod in PODS if "mlflow" not in pod.owner and pod is not NODE], ids=by_owner)
def test_every_place_that_the_image_writes_to_is_a_writable_mount(pod: Pod) -> None:
    """On a read-only root, a cache directory that is no mount is an error in the middle of a run."""
    written = Dockerfile(ROOT / "Dockerfile").writable_places()
    for container in pod.containers:
        mounts = [Path(mount["mountPath"]) for mount in container["volumeMounts"] if not mount.get("readOnly")]
        set_here = {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}
        for variable, path in (written | set_here).items():
            if path.startswith("/"):
                assert any(Path(path).is_relative_to(mount) for mount in mounts), f"{pod.owner}: {variable}={path}"


def granted(kind: str, account: str) -> set[tuple[str, str, str]]:
    """(API group, resource, verb) that bindings of a kind give to a service account."""
    roles = {one["metadata"]["name"]: one["rules"] for one in manifests.of_kind(RAW, kind)}
    bindings = [
        one
        for one in manifests.of_kind(RAW, f"{kind}Binding")
        if any((subject["kind"], subject["name"]) == ("ServiceAccount", account) for subject in one["subjects"])
    ]
    return {
        (group, resource, verb)
        for binding in bindings
        for rule in roles[binding["roleRef"]["name"]]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize(("kind", "namespaced"), [("Role", True), ("ClusterRole", False)])
def test_the_account_may_do_what_the_code_does_and_nothing_else(kind: str, namespaced: bool) -> None:
    used = {
        (resource.group, resource.name, verb)
        for resource in PERMISSIONS
        if resource.namespaced is namespaced
        for verb in resource.verbs
    }
    assert granted(kind, "ocrmem") == used
    [role] = [one for one in manifests.of_kind(RAW, kind) if one["metadata"]["name"] == "ocrmem"]
    only = {(name, tuple(rule.get("resourceNames", ()))) for rule in role["rules"] for name in rule["resources"]}
    assert only == {(one.name, one.only) for one in PERMISSIONS if one.namespaced is namespaced}
    assert ACCESS_REVIEWS not in PERMISSIONS, "every account may do that"


def test_the_workflows_account_writes_task_results_only() -> None:
    assert granted("Role", "ocrmem-workflow") == {
        ("argoproj.io", "workflowtaskresults", verb) for verb in ("create", "patch")
    }
    assert granted("ClusterRole", "ocrmem-workflow") == set()


def test_single_objects_are_granted_by_the_names_in_the_settings() -> None:
    settings = RunConfig().kubernetes
    names = {
        (rule["resources"][0]): rule["resourceNames"]
        for role in manifests.of_kind(RAW, "Role") + manifests.of_kind(RAW, "ClusterRole")
        for rule in role["rules"]
        if "resourceNames" in rule
    }
    assert names == {
        "secrets": [settings.secret_name],
        "namespaces": [settings.namespace],
        "clustertrainingruntimes": [settings.runtime],
    }


POLICIES = {one["metadata"]["name"]: one["spec"] for one in manifests.of_kind(RAW, "NetworkPolicy")}
# Labels that Argo and Kubeflow Pipelines put on the pods they make.
ARGO = {"workflows.argoproj.io/workflow": "smoke-x7k2"}
KFP = ARGO | {"pipeline/runid": "1f"}
TRAINING = NODE.labels
MLFLOW = {"app.kubernetes.io/name": "mlflow"}


def selects(selector: Object, labels: dict[str, str]) -> bool:
    for rule in selector.get("matchExpressions", []):
        value = labels.get(rule["key"])
        holds = {"Exists": value is not None, "NotIn": value not in rule.get("values", [])}[rule["operator"]]
        if not holds:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def openings(direction: str, labels: dict[str, str]) -> set[str]:
    """The names of the policies that open a direction to a pod."""
    return {
        name for name, spec in POLICIES.items() if selects(spec["podSelector"], labels) and spec.get(direction.lower())
    }


@pytest.mark.parametrize(
    ("labels", "out", "into"),
    [
        (TRAINING, {"dns", "https-out", "training-peers", "training-status", "to-mlflow"}, {"training-peers"}),
        (ARGO, {"dns", "https-out", "api-server", "to-mlflow"}, set()),
        (KFP, {"dns", "https-out", "api-server", "kubeflow", "to-mlflow"}, set()),
        (MLFLOW, {"dns", "to-mlflow"}, {"mlflow"}),
        ({}, {"dns", "https-out", "to-mlflow"}, set()),
    ],
    ids=["training", "argo", "kfp", "mlflow", "another"],
)
def test_a_pod_has_the_openings_that_it_needs(labels: dict[str, str], out: set[str], into: set[str]) -> None:
    assert openings("Egress", labels) == out
    assert openings("Ingress", labels) == into


def test_what_no_policy_names_is_denied() -> None:
    assert POLICIES["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, spec in POLICIES.items():
        for direction in ("ingress", "egress"):
            assert (direction in spec) <= (direction.capitalize() in spec["policyTypes"]), name
            for rule in spec.get(direction, []):
                assert rule.get("from") or rule.get("to"), f"{name} is open to all"


def test_https_goes_to_no_private_address() -> None:
    blocks = [to["ipBlock"] for rule in POLICIES["https-out"]["egress"] for to in rule["to"]]
    for address in ("10.96.0.1", "172.20.3.4", "192.168.1.1", "169.254.169.254", "fd00::1"):
        ip = ipaddress.ip_address(address)
        for block in blocks:
            if ip.version == ipaddress.ip_network(block["cidr"]).version:
                assert any(ip in ipaddress.ip_network(one) for one in block["except"]), address


PLACEHOLDER = re.compile(r"<[^>]+>")


def test_no_secret_is_in_git_and_the_examples_hold_placeholders_only() -> None:
    examples = K8S / "examples"
    for directory in manifests.KUSTOMIZATIONS:
        assert "examples" not in (directory / "kustomization.yaml").read_text(encoding="utf-8")
    assert not [thing for thing in RAW if thing["kind"] in ("Secret", "ExternalSecret")]
    [secret] = manifests.documents(examples / "secret.example.yaml")
    manifests.validate(secret)
    assert "data" not in secret
    assert all(PLACEHOLDER.fullmatch(value) for value in secret["stringData"].values())
    [external] = manifests.documents(examples / "external-secret.example.yaml")
    assert external["spec"]["target"]["name"] == secret["metadata"]["name"] == RunConfig().kubernetes.secret_name
    assert PLACEHOLDER.fullmatch(external["spec"]["dataFrom"][0]["extract"]["key"])


def test_no_manifest_looks_like_it_holds_a_key() -> None:
    for path in K8S.rglob("*.yaml"):
        assert not list(find_in_text(path.read_text(encoding="utf-8"))), path
