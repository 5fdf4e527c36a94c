"""The kinds of object that the platform deals with, and where the API server has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torpor_hub.errors import ClusterError

Json = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind: its API version, its name, its plural in addresses, and whether it lives in namespaces."""

    api: str
    name: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "") -> str:
        """Return the path of one object, or of the list of all in ``namespace`` (empty: in all namespaces)."""
        root = f"/api/{self.api}" if "/" not in self.api else f"/apis/{self.api}"
        inside = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{inside}/{self.plural}" + (f"/{name}" if name else "")


NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
NODE = Kind("v1", "Node", "nodes", namespaced=False)
POD = Kind("v1", "Pod", "pods")
EVENT = Kind("v1", "Event", "events")
SECRET = Kind("v1", "Secret", "secrets")
SERVICE = Kind("v1", "Service", "services")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
VOLUME = Kind("v1", "PersistentVolume", "persistentvolumes", namespaced=False)
QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
LIMIT_RANGE = Kind("v1", "LimitRange", "limitranges")
JOB = Kind("batch/v1", "Job", "jobs")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
ROLE_BINDING = Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
CLUSTER_ROLE = Kind("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", namespaced=False)
STORAGE_CLASS = Kind("storage.k8s.io/v1", "StorageClass", "storageclasses", namespaced=False)
TOKEN_REVIEW = Kind("authentication.k8s.io/v1", "TokenReview", "tokenreviews", namespaced=False)
ACCESS_REVIEW = Kind("authorization.k8s.io/v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False)

KINDS = (
    *(NAMESPACE, NODE, POD, EVENT, SECRET, SERVICE, CONFIG_MAP, SERVICE_ACCOUNT, CLAIM, VOLUME, QUOTA, LIMIT_RANGE),
    *(JOB, NETWORK_POLICY, DISRUPTION_BUDGET, ROLE_BINDING, CLUSTER_ROLE, STORAGE_CLASS, TOKEN_REVIEW, ACCESS_REVIEW),
)
_BY_NAME = {(kind.api, kind.name): kind for kind in KINDS}


def of(thing: Mapping[str, Any]) -> Kind:
    """Return an object's kind.

    Raises:
        ClusterError: when the platform does not deal with such objects.
    """
    try:
        return _BY_NAME[thing["apiVersion"], thing["kind"]]
    except KeyError as error:
        raise ClusterError(
            f"{thing.get('apiVersion')} {thing.get('kind')} is no kind that the platform makes."
        ) from error


def place(thing: Mapping[str, Any]) -> tuple[str, str]:
    """Return an object's namespace (empty for none) and its name."""
    return thing["metadata"].get("namespace", ""), thing["metadata"]["name"]
