"""Every kind of object that the launcher touches, with the verbs that it uses: one table.

`ocrmem.cluster.api` takes its paths from these rows and refuses a verb that its row does not name, so the table
cannot lag behind the code. k8s/base grants exactly these, `checks` asks the API server for them, and a refused call
is explained by them.
"""

from __future__ import annotations

from dataclasses import dataclass

TRAINER = "trainer.kubeflow.org"


@dataclass(frozen=True)
class Resource:
    """A kind of object in the Kubernetes API.

    Attributes:
        group: API group; empty for the core.
        version: of the group.
        plural: its name in paths and roles.
        verbs: what the code does with it.
        subresource: such as ``log``.
        namespaced: whether a Role in the namespace can grant it; otherwise a ClusterRole must.
        required: False where the code goes on without it.
    """

    group: str
    version: str
    plural: str
    verbs: tuple[str, ...]
    subresource: str = ""
    namespaced: bool = True
    required: bool = True

    @property
    def name(self) -> str:
        """As roles write it: ``pods/log``."""
        return f"{self.plural}/{self.subresource}" if self.subresource else self.plural


TRAINJOBS = Resource(TRAINER, "v1alpha1", "trainjobs", ("create", "delete", "get", "list", "watch"))
PODS = Resource("", "v1", "pods", ("list", "watch"))
POD_LOGS = Resource("", "v1", "pods", ("get",), subresource="log")
EVENTS = Resource("", "v1", "events", ("list", "watch"))
# What follows is read by the checks before a run.
CLAIMS = Resource("", "v1", "persistentvolumeclaims", ("get",))
SECRETS = Resource("", "v1", "secrets", ("get",))
QUOTAS = Resource("", "v1", "resourcequotas", ("list",))
NAMESPACES = Resource("", "v1", "namespaces", ("get",))  # a Role can grant the get of its own namespace
RUNTIMES = Resource(TRAINER, "v1alpha1", "clustertrainingruntimes", ("get",), namespaced=False)
NODES = Resource("", "v1", "nodes", ("list",), namespaced=False, required=False)

PERMISSIONS = (TRAINJOBS, PODS, POD_LOGS, EVENTS, CLAIMS, SECRETS, QUOTAS, NAMESPACES, RUNTIMES, NODES)
# Every account that has logged in may ask what it may do (system:basic-user), so no role of ours grants it.
ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", ("create",), namespaced=False)
