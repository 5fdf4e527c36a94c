"""What somebody with the controller's token would try, and what the cluster says to it: for dry runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from tests.cluster.walls_site import ELSEWHERE, RELEASE

Json = dict[str, Any]
INSTANCE = "torpor/instance"
OWN, ANOTHER = f"{RELEASE.namespace}.{RELEASE.name}", f"{RELEASE.namespace}.another"
MANAGED = {"app.kubernetes.io/managed-by": "torpor", INSTANCE: OWN}
NAMESPACES, VOLUMES = "/api/v1/namespaces", "/api/v1/persistentvolumes"
RBAC = "rbac.authorization.k8s.io"
MERELY_OURS, NOT_OURS, FOREIGN_NAME = (
    "has the label torpor/tenant",
    "is no tenant's",
    "names of tenants' namespaces begin with",
)
LEVEL, TENANTS_ALONE, TWO_ROLES = (
    "enforces Pod Security's level",
    "tenants' namespaces alone",
    "only the roles of hub",
)
ACCOUNTS, DATA, READ_ONLY = (
    "to the platform's own accounts alone",
    "over the platform's own data",
    "for reading, are kept",
)
NOT_OF_THIS_ONE = "has the label torpor/instance"
NOT_THE_PLATFORMS, NO_RIGHT = "is not the platform's", "is attempting to grant RBAC permissions not currently held"
HUB_ROLE, CONTROLLER_ROLE = f"{RELEASE.fullname}-tenant-hub", f"{RELEASE.fullname}-tenant-controller"
HUB, SERVER = f"{RELEASE.fullname}-hub", f"{RELEASE.fullname}-server"
TENANT = f"{RELEASE.prefix}research"


class Attempt(NamedTuple):
    """A request, and part of the refusal that it must meet; empty where it must be accepted."""

    what: str
    refusal: str
    method: str
    path: str
    content: Json | None = None

    def is_met(self, said: str) -> bool:
        """Return whether the cluster said what it must."""
        return self.refusal in said if self.refusal else not said


def attempts(data: Json, foreign_volumes: Iterable[str]) -> Iterator[Attempt]:
    """Yield attempts where the release's own data lie in ``data``; ``foreign_volumes`` are not its tenants'."""
    yield from _namespaces()
    yield from _bindings()
    yield from _volumes(data)
    for volume in foreign_volumes:
        yield Attempt(f"{volume} removed", NOT_THE_PLATFORMS, "DELETE", f"{VOLUMES}/{volume}")
        yield Attempt(
            f"{volume} taken", NOT_THE_PLATFORMS, "PATCH", f"{VOLUMES}/{volume}", {"metadata": {"labels": MANAGED}}
        )


def _namespaces() -> Iterator[Attempt]:
    def new(what: str, refusal: str, name: str, *, instance: str = OWN, **labels: str) -> Attempt:
        content = _object("v1", "Namespace", name, labels={"instance": instance, **labels})
        return Attempt(what, refusal, "POST", NAMESPACES, content)

    def change(what: str, refusal: str, name: str, **labels: str | None) -> Attempt:
        return Attempt(what, refusal, "PATCH", f"{NAMESPACES}/{name}", {"metadata": {"labels": _marks(labels)}})

    yield new("a tenant's namespace", "", f"{RELEASE.prefix}new", tenant="tn-1", level="restricted")
    yield new("one of another name", FOREIGN_NAME, "new", tenant="tn-1", level="restricted")
    yield new("one of nobody", MERELY_OURS, f"{RELEASE.prefix}new", level="restricted")
    yield new(
        "one of another installation",
        NOT_OF_THIS_ONE,
        f"{RELEASE.prefix}new",
        instance=ANOTHER,
        tenant="tn-1",
        level="restricted",
    )
    yield new("one without a level", LEVEL, f"{RELEASE.prefix}new", tenant="tn-1")
    yield new("one that lets root in", LEVEL, f"{RELEASE.prefix}new", tenant="tn-1", level="privileged")
    yield change("a lower level", LEVEL, TENANT, level="baseline")
    yield change("a tenant's namespace given up", MERELY_OURS, TENANT, tenant=None)
    yield change("a tenant's namespace given away", NOT_OF_THIS_ONE, TENANT, instance=ANOTHER)
    yield change(
        "the system's namespace made a tenant's", FOREIGN_NAME, "kube-system", tenant="tn-1", level="restricted"
    )
    yield change("the agents' namespace made a tenant's", NOT_OURS, RELEASE.agents, tenant="tn-1", level="restricted")
    for name, refusal in {RELEASE.namespace: FOREIGN_NAME, RELEASE.agents: NOT_OURS, ELSEWHERE: NOT_OURS}.items():
        yield Attempt(f"{name} removed", refusal, "DELETE", f"{NAMESPACES}/{name}")


def _bindings() -> Iterator[Attempt]:
    def bind(what: str, refusal: str, role: str, account: str, *, at: str = TENANT, **other: str) -> Attempt:
        subject = {"kind": "ServiceAccount", "name": account, "namespace": RELEASE.namespace} | other
        reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}
        content = _object(f"{RBAC}/v1", "RoleBinding", "new", roleRef=reference, subjects=[subject])
        return Attempt(what, refusal, "POST", f"/apis/{RBAC}/v1/namespaces/{at}/rolebindings", content)

    yield bind("the hub's role for the hub", "", HUB_ROLE, HUB)
    yield bind("the controller's role for the controller", "", CONTROLLER_ROLE, SERVER)
    for place in ("kube-system", "default", RELEASE.namespace, RELEASE.agents):
        yield bind(f"the controller's role in {place}", TENANTS_ALONE, CONTROLLER_ROLE, SERVER, at=place)
    yield bind("an administrator", NO_RIGHT, "cluster-admin", SERVER)
    yield bind("a reader of everything", NO_RIGHT, "view", SERVER)
    yield bind("the controller's role for the hub", ACCOUNTS, CONTROLLER_ROLE, HUB)
    yield bind("the hub's role for the importer", ACCOUNTS, HUB_ROLE, f"{RELEASE.fullname}-importer")
    yield bind("the hub's role for a user's code", ACCOUNTS, HUB_ROLE, "torpor-user", namespace=TENANT)
    taken = f"/apis/{RBAC}/v1/namespaces/kube-system/rolebindings/system:controller:token-cleaner"
    yield Attempt("a binding of the system removed", TENANTS_ALONE, "DELETE", taken)


def _volumes(data: Json) -> Iterator[Attempt]:
    def make(
        what: str, refusal: str, source: Json, *, at: str = TENANT, mode: str = "ReadOnlyMany", **more: Any
    ) -> Attempt:
        spec = {
            "accessModes": [mode],
            "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": at, "name": "data"},
            **source,
        }
        labels = {} if more.pop("of_nobody", False) else dict(MANAGED)
        content = _object("v1", "PersistentVolume", f"{TENANT}-new", spec=spec | more)
        content["metadata"]["labels"] = labels
        return Attempt(what, refusal, "POST", VOLUMES, content)

    yield make("a volume over the data", "", data)
    yield make("the whole node", DATA, {"hostPath": {"path": "/"}})
    yield make("a folder below the data", DATA, {"hostPath": {"path": f"{data['hostPath']['path']}/below"}})
    yield make("another server's data", DATA, {"nfs": {"server": "198.18.0.1", "path": "/"}})
    yield make("another driver's data", DATA, {"csi": {"driver": "csi.example.org", "volumeHandle": "one"}})
    yield make("a disk of the node", DATA, {"local": {"path": "/var/lib"}, "nodeAffinity": _node()})
    yield make("the data to write", READ_ONLY, data, mode="ReadWriteMany")
    yield make("the data, removed with its claim", READ_ONLY, data, persistentVolumeReclaimPolicy="Delete")
    yield make("the data for the system", READ_ONLY, data, at="kube-system")
    yield make("the data for nobody", READ_ONLY, data, of_nobody=True)


def another_platforms_volume(data: Json) -> Json:
    """Return a volume that another installation's controller keeps on the same cluster: only its mark tells."""
    spec = {
        "accessModes": ["ReadOnlyMany"],
        "capacity": {"storage": "1Gi"},
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "",
        "claimRef": {"namespace": TENANT, "name": "of-another"},
        **data,
    }
    made = _object("v1", "PersistentVolume", f"{RELEASE.prefix}of-another", spec=spec)
    made["metadata"]["labels"] = MANAGED | {INSTANCE: ANOTHER}
    return made


def _object(api: str, kind: str, name: str, *, labels: dict[str, str] | None = None, **content: Any) -> Json:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "labels": _marks(labels or {})}, **content}


def _marks(labels: Any) -> Json:
    keys = {"tenant": "torpor/tenant", "level": "pod-security.kubernetes.io/enforce", "instance": INSTANCE}
    return {keys[key]: value for key, value in labels.items()}


def _node() -> Json:
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["torpor-0"]}]}
    return {"required": {"nodeSelectorTerms": [term]}}
