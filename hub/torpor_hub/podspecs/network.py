"""Who may speak with whom in a tenant's namespace: nobody with anybody, but for what is named here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torpor_hub.podspecs import job, names, workspace
from torpor_hub.podspecs.shape import ClusterShape

Json = dict[str, Any]
NAMESPACE_NAME = "kubernetes.io/metadata.name"


def policies(shape: ClusterShape) -> Sequence[tuple[str, Json]]:
    """Return name and ``spec`` of each policy of a tenant's namespace. They add up, and what none allows is refused.

    Everything in the namespace may ask for names and reach the api. Workspaces also reach the hub, and hub and proxy reach
    them. Nothing of one tenant reaches another's, nor two workspaces each other.
    """
    return (
        ("deny-all", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        ("allow-names", _egress({}, [_names(shape)])),
        ("allow-api", _egress({}, [_to(shape, "server", shape.server_port)])),
        ("allow-hub", _egress(_component(workspace.COMPONENT), [_to(shape, "hub", shape.hub_port)])),
        ("allow-visitors", _visitors(shape)),
        *((("allow-declared", _egress(_user_code(), [dict(rule) for rule in shape.egress])),) if shape.egress else ()),
    )


def _names(shape: ClusterShape) -> Json:
    ports = [{"protocol": protocol, "port": port} for port in shape.dns_ports for protocol in ("UDP", "TCP")]
    return {"to": [_peer(shape.dns_namespace, {"matchLabels": dict(shape.dns_labels)})], "ports": ports}


def _visitors(shape: ClusterShape) -> Json:
    either: Json = {"matchExpressions": [{"key": names.COMPONENT, "operator": "In", "values": ["hub", "proxy"]}]}
    if shape.platform_labels:
        either["matchLabels"] = dict(shape.platform_labels)
    return {
        "podSelector": _component(workspace.COMPONENT),
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [_peer(shape.platform_namespace, either)], "ports": _tcp(shape.workspace_port)}],
    }


def _to(shape: ClusterShape, component: str, port: int) -> Json:
    labels = {**shape.platform_labels, names.COMPONENT: component}
    return {"to": [_peer(shape.platform_namespace, {"matchLabels": labels})], "ports": _tcp(port)}


def _egress(selector: Mapping[str, Any], rules: Sequence[Json]) -> Json:
    return {"podSelector": dict(selector), "policyTypes": ["Egress"], "egress": list(rules)}


def _peer(namespace: str, pods: Json) -> Json:
    return {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: namespace}}, "podSelector": pods}


def _component(name: str) -> Json:
    return {"matchLabels": {names.COMPONENT: name}}


def _user_code() -> Json:
    both = {"key": names.COMPONENT, "operator": "In", "values": [workspace.COMPONENT, job.COMPONENT]}
    return {"matchExpressions": [both]}


def _tcp(port: int) -> list[Json]:
    return [{"protocol": "TCP", "port": port}]
