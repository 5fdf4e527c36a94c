"""Everything that a tenant has on a cluster."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torpor_hub.domain.units import Amount
from torpor_hub.podspecs import names, network, workspace
from torpor_hub.podspecs.quantities import GPU
from torpor_hub.podspecs.shape import ClusterShape

Json = dict[str, Any]
COMPONENT = "tenant"
SMALLEST = Amount(cpu_milli=100, memory_bytes=128 * 1024**2)
# More than there will ever be, and a number: budgets of pods that nothing owns know neither percentages nor maxUnavailable.
ALL = 1_000_000


@dataclass(frozen=True)
class TenantPlan:
    """What a tenant's namespace is made from. ``share`` is what its workspaces and jobs may hold together.

    ``pull_user`` and ``pull_password`` let its nodes pull images; empty where the registry has no accounts.
    """

    id: str
    name: str
    share: Amount
    user_ids: tuple[str, ...] = ()
    pull_user: str = ""
    pull_password: str = ""


def namespace_object(plan: TenantPlan, shape: ClusterShape) -> Json:
    """Return the tenant's namespace, which holds nothing above Pod Security's level "restricted".

    Raises:
        ClusterError: when the tenant's name cannot name one.
    """
    levels = {
        f"pod-security.kubernetes.io/{key}": value
        for key, value in {"enforce": "restricted", "enforce-version": "latest"}.items()
    }
    labels = {**names.managed_labels(COMPONENT, plan.id), **shape.instance_labels, **levels}
    name = names.namespace(shape.namespace_prefix, plan.name)
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def tenant_objects(plan: TenantPlan, shape: ClusterShape) -> list[Json]:
    """Return what belongs into the tenant's namespace, homes apart, in the order in which it has to be made.

    First the controller's own rights there, then the walls, then what pods need, and last the hub's right to make pods.
    Defaults come before the quota, which refuses every pod without requests. All of it may be applied again at any time.

    Raises:
        ClusterError: when the tenant's name or id cannot name objects.
    """
    return [_in_namespace(thing, plan, shape) for thing in _contents(plan, shape)]


def home_object(plan: TenantPlan, user_id: str, shape: ClusterShape) -> Json:
    """Return a member's claim for a home. It is made once and never applied again: most classes let no size change.

    Raises:
        ClusterError: when the user's id cannot name an object.
    """
    spec: Json = {
        "accessModes": [shape.home_access_mode],
        "resources": {"requests": {"storage": str(shape.home_bytes)}},
    }
    if shape.storage_class:
        spec["storageClassName"] = shape.storage_class
    claim = _object("v1", "PersistentVolumeClaim", names.home_claim(user_id), spec=spec)
    claim["metadata"]["labels"] = names.managed_labels("home", plan.id, user=user_id)
    return _in_namespace(claim, plan, shape)


def _contents(plan: TenantPlan, shape: ClusterShape) -> Iterator[Json]:
    yield _binding("torpor-controller", shape.tenant_controller_role, shape.server_account, shape)
    for name, spec in network.policies(shape):
        yield _object("networking.k8s.io/v1", "NetworkPolicy", name, spec=spec)
    yield _object("v1", "LimitRange", "torpor", spec={"limits": [_container_limits(plan.share)]})
    yield _object("v1", "ResourceQuota", "torpor", spec={"hard": _quota(plan.share)})
    yield _object("v1", "ServiceAccount", shape.service_account, automountServiceAccountToken=False)
    yield _object("policy/v1", "PodDisruptionBudget", "workspaces", spec=_budget())
    if shape.registry_host:
        yield _pull_secret(plan, shape)
    yield _binding("torpor-hub", shape.tenant_hub_role, shape.hub_account, shape)


def _in_namespace(thing: Json, plan: TenantPlan, shape: ClusterShape) -> Json:
    labels = names.managed_labels(COMPONENT, plan.id) | thing["metadata"].get("labels", {})
    place = {"namespace": names.namespace(shape.namespace_prefix, plan.name), "labels": labels}
    return {**thing, "metadata": thing["metadata"] | place}


def _object(api: str, kind: str, name: str, **content: Any) -> Json:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **content}


def _binding(name: str, role: str, account: str, shape: ClusterShape) -> Json:
    """Return a binding to a role of the whole cluster, which the controller may bind without having its rights itself."""
    api = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": account, "namespace": shape.platform_namespace}
    reference = {"apiGroup": api, "kind": "ClusterRole", "name": role}
    return _object(f"{api}/v1", "RoleBinding", name, roleRef=reference, subjects=[subject])


def _container_limits(share: Amount) -> Json:
    """Return limits for one container: at most the tenant's whole share, and never one on disk."""
    default = {"cpu": f"{SMALLEST.cpu_milli}m", "memory": str(SMALLEST.memory_bytes)}
    most = {"cpu": f"{share.cpu_milli}m", "memory": str(share.memory_bytes)}
    return {"type": "Container", "default": default, "defaultRequest": dict(default), "max": most}


def _quota(share: Amount) -> Json:
    cpu, memory = f"{share.cpu_milli}m", str(share.memory_bytes)
    return {
        "requests.cpu": cpu,
        "limits.cpu": cpu,
        "requests.memory": memory,
        "limits.memory": memory,
        f"requests.{GPU}": str(share.gpu_count),
    }


def _budget() -> Json:
    """Return a budget that lets no workspace be evicted, not even one that stands frozen and so is not ready."""
    selector: Mapping[str, str] = {names.MANAGED_BY: names.OWNER, names.COMPONENT: workspace.COMPONENT}
    return {"minAvailable": ALL, "selector": {"matchLabels": dict(selector)}}


def _pull_secret(plan: TenantPlan, shape: ClusterShape) -> Json:
    login = base64.b64encode(f"{plan.pull_user}:{plan.pull_password}".encode()).decode()
    hosts = {shape.registry_host: {"auth": login}} if plan.pull_user else {}
    content = base64.b64encode(json.dumps({"auths": hosts}).encode()).decode()
    data = {".dockerconfigjson": content}
    return _object("v1", "Secret", shape.pull_secret, type="kubernetes.io/dockerconfigjson", data=data)
