"""Kubernetes' Pod Security Standard "restricted", as rules over a pod's spec.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ (restricted includes baseline).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]
VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"
}  # fmt: skip


def violations(spec: Object) -> list[str]:
    """What keeps a pod out of a namespace that enforces "restricted"; empty: it is admitted."""
    return [*_of_pod(spec), *(fault for one in _containers(spec) for fault in _of_container(one, spec))]


def _containers(spec: Object) -> Iterator[Object]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(field, [])


def _of_pod(spec: Object) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field
    for volume in spec.get("volumes", []):
        if not set(volume) - {"name"} <= VOLUMES:
            yield f"volume {volume['name']}"
    security = spec.get("securityContext", {})
    for field in ("sysctls", "seLinuxOptions", "windowsOptions", "appArmorProfile"):
        if security.get(field):
            yield f"securityContext.{field}"
    if security.get("runAsUser") == 0:
        yield "runAsUser 0"


def _of_container(container: Object, spec: Object) -> Iterator[str]:
    name = container["name"]
    pod = spec.get("securityContext", {})
    own = container.get("securityContext", {})
    if own.get("privileged"):
        yield f"{name}: privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield f"{name}: runAsNonRoot"
    if own.get("runAsUser") == 0:
        yield f"{name}: runAsUser 0"
    if own.get("seccompProfile", pod.get("seccompProfile", {})).get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{name}: seccompProfile"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or not set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"}:
        yield f"{name}: capabilities"
    if own.get("procMount", "Default") != "Default":
        yield f"{name}: procMount"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield f"{name}: hostPort"
