"""Every kind of object that the launcher touches, with the verbs that it uses: one table.

`ocrmem.cluster.api` takes its paths from these rows and refuses a verb that its row does not name, so the table
cannot lag behind the code. k8s/base grants exactly these, `checks` asks the API server for them, and a refused call
is explained by them.
"""

from __future__ import annotations

from dataclasses import dataclass

TRAINER = "trainer.kubeflow.org"
ROLES = "k8s/base/rbac.yaml"  # a test compares it with this table
ROLE_NAMESPACE = "ocrmem"


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
        required: False where the code continues without it.
        only: names that the role grants it for; empty: any.
    """

    group: str
    version: str
    plural: str
    verbs: tuple[str, ...]
    subresource: str = ""
    namespaced: bool = True
    required: bool = True
    only: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the name that roles use: ``pods/log``."""
        return f"{self.plural}/{self.subresource}" if self.subresource else self.plural


TRAINJOBS = Resource(TRAINER, "v1alpha1", "trainjobs", ("create", "delete", "get", "list", "watch"))
PODS = Resource("", "v1", "pods", ("list", "watch"))
POD_LOGS = Resource("", "v1", "pods", ("get",), subresource="log")
EVENTS = Resource("", "v1", "events", ("list", "watch"))
# What follows is read by the checks before a run.
CLAIMS = Resource("", "v1", "persistentvolumeclaims", ("get",))
SECRETS = Resource("", "v1", "secrets", ("get",), only=("ocrmem-secrets",))
QUOTAS = Resource("", "v1", "resourcequotas", ("list",))
NAMESPACES = Resource(
    "", "v1", "namespaces", ("get",), only=(ROLE_NAMESPACE,)
)  # a Role can grant the get of its own namespace
RUNTIMES = Resource(
    TRAINER, "v1alpha1", "clustertrainingruntimes", ("get",), namespaced=False, only=("ocrmem-deepspeed",)
)
NODES = Resource("", "v1", "nodes", ("list",), namespaced=False, required=False)

PERMISSIONS = (TRAINJOBS, PODS, POD_LOGS, EVENTS, CLAIMS, SECRETS, QUOTAS, NAMESPACES, RUNTIMES, NODES)
# The schemas of the API as this server has them; every account that has logged in may read them (system:discovery).
OPENAPI = f"/openapi/v3/apis/{TRAINER}/v1alpha1"
# Every account that has logged in may ask what it may do (system:basic-user), so no role of ours grants it.
ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", ("create",), namespaced=False)


def grant(resource: Resource, verb: str, name: str, namespace: str) -> str:
    """Return what to do so that a call is allowed: the file that grants the right, or the commands where none does."""
    kind, scope = ("Role", f" -n {namespace}") if resource.namespaced else ("ClusterRole", "")
    in_file = resource in PERMISSIONS and verb in resource.verbs and (not resource.only or name in resource.only)
    if in_file and (not resource.namespaced or namespace == ROLE_NAMESPACE):
        return f"Apply {ROLES}, whose {kind} grants it to the account ocrmem, or bind that {kind} to the account used"
    role = f"ocrmem-{resource.plural}" + (f"-{name}" if name else "")
    only = f" --resource-name={name}" if name and verb == "get" else ""
    group = f".{resource.group}" if resource.group else ""
    sub = f"/{resource.subresource}" if resource.subresource else ""
    return (
        f"{ROLES} does not grant it; `kubectl create {kind.lower()} {role}{scope} --verb={verb} "
        f"--resource={resource.plural}{group}{sub}{only}` makes a {kind} to bind to the account used"
    )
