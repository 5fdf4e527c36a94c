"""What each of the platform's accounts may do on a cluster: one table for the chart, the documentation and the tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torpor_hub.podspecs.shape import ClusterShape

CORE = ""
READ = ("get", "list", "watch")
# Server-side apply is a patch, and a creation where there is nothing yet.
KEEP = ("get", "list", "watch", "create", "patch", "delete")
TENANT_HUB, TENANT_CONTROLLER, CONTROLLER, API = "tenant-hub", "tenant-controller", "controller", "api"


@dataclass(frozen=True)
class Right:
    """Verbs on kinds of one API group, narrowed to objects by ``names`` where there are any; ``why`` says what for."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str
    names: tuple[str, ...] = ()

    def rule(self) -> dict[str, Any]:
        """Return the right as a rule of a role."""
        rule: dict[str, Any] = {
            "apiGroups": [self.group],
            "resources": list(self.resources),
            "verbs": list(self.verbs),
        }
        return rule | ({"resourceNames": list(self.names)} if self.names else {})


@dataclass(frozen=True)
class Role:
    """A ClusterRole. ``account`` gets it in the whole cluster, or (``in_tenants``) in each tenant's namespace alone."""

    name: str
    account: str
    in_tenants: bool
    rights: tuple[Right, ...]


def roles(shape: ClusterShape) -> Mapping[str, Role]:
    """Return every role of an installation. An account that none names has no right at all, and no token.

    The server's account may do what the api's may: where one program is both, it runs as the server.
    """
    bound = (shape.tenant_hub_role, shape.tenant_controller_role)
    return {
        TENANT_HUB: Role(shape.tenant_hub_role, shape.hub_account, True, HUB_IN_TENANTS),
        TENANT_CONTROLLER: Role(shape.tenant_controller_role, shape.server_account, True, CONTROLLER_IN_TENANTS),
        CONTROLLER: Role(f"{shape.fullname}-controller", shape.server_account, False, (*_in_cluster(bound), REVIEWS)),
        API: Role(f"{shape.fullname}-api", shape.api_account, False, (REVIEWS,)),
    }


def rules(role: Role) -> list[dict[str, Any]]:
    """Return the ``rules`` of a role, as the chart has to have them."""
    return [right.rule() for right in role.rights]


HUB_IN_TENANTS = (
    Right(
        CORE, ("pods",), ("list", "watch", "create"), "Starts workspaces and finds them again; it never removes one."
    ),
    Right(CORE, ("events",), ("list", "watch"), "Says why a start takes long or fails."),
)
CONTROLLER_IN_TENANTS = (
    Right(CORE, ("pods",), (*READ, "delete"), "Sees what runs; removes a workspace that is saved."),
    Right(CORE, ("pods/log",), ("get",), "Keeps the last lines of a workspace that failed."),
    Right(CORE, ("events",), ("list", "watch"), "Says why a pod does not start."),
    Right("batch", ("jobs",), (*READ, "create", "delete"), "Runs attempts of jobs."),
    Right(CORE, ("persistentvolumeclaims",), KEEP, "Makes homes and the claims for data."),
    Right(CORE, ("resourcequotas", "limitranges", "serviceaccounts", "secrets"), KEEP, "Keeps what a tenant needs."),
    Right("networking.k8s.io", ("networkpolicies",), KEEP, "Keeps the walls of a tenant."),
    Right("policy", ("poddisruptionbudgets",), KEEP, "Keeps evictions off workspaces."),
)
REVIEWS = Right("authentication.k8s.io", ("tokenreviews",), ("create",), "Learns who the hub, importer and agents are.")


def _in_cluster(bound: tuple[str, ...]) -> tuple[Right, ...]:
    group = "rbac.authorization.k8s.io"
    return (
        Right(CORE, ("namespaces",), KEEP, "Makes a namespace per tenant."),
        Right(CORE, ("nodes",), READ, "Knows which nodes answer, are drained, and what they have."),
        Right(CORE, ("persistentvolumes",), KEEP, "Makes the read-only volumes of data."),
        Right(group, ("rolebindings",), KEEP, "Gives hub and controller their rights in a tenant's namespace."),
        Right(group, ("clusterroles",), ("bind",), "May give exactly these two roles away.", bound),
    )
