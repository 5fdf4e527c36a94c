"""What one installation looks like on its cluster: everything that objects need and the domain does not know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torpor_hub.podspecs import names

GIB = 1024**3


@dataclass(frozen=True)
class ClusterShape:
    """Names, ports and choices of one installation. ``registry_host`` empty: no registry, nothing is saved or pulled by secret.

    ``platform_labels`` are those that all of the platform's own pods carry beside their component. Ports are the pods' own,
    because network policies see them after the translation of services. ``tolerations`` and ``node_selector`` are those of
    workspaces and jobs; ``egress`` are rules of a NetworkPolicy for what they may reach beside names, the api and the hub.
    """

    platform_namespace: str
    release: str = "torpor"
    fullname: str = "torpor"
    namespace_prefix: str = "torpor-"
    agent_namespace: str = "torpor-agent"
    platform_labels: Mapping[str, str] = field(default_factory=dict)
    registry_host: str = ""
    pull_secret: str = "torpor-pull"  # noqa: S105 # the name of a Secret
    service_account: str = "torpor-user"
    hub_account: str = "torpor-hub"
    server_account: str = "torpor-server"
    api_account: str = "torpor-api"
    tenant_hub_role: str = "torpor-tenant-hub"
    tenant_controller_role: str = "torpor-tenant-controller"
    storage_class: str = ""
    home_access_mode: str = "ReadWriteOnce"
    home_bytes: int = 10 * GIB
    dns_ports: tuple[int, ...] = (53, 5353)
    dns_namespace: str = "kube-system"
    dns_labels: Mapping[str, str] = field(default_factory=lambda: {"k8s-app": "kube-dns"})
    egress: tuple[Mapping[str, Any], ...] = ()
    server_port: int = 8090
    hub_port: int = 8081
    workspace_port: int = 8888
    workspace_root: str = "/opt/workspace"
    home_dir: str = "/home/user"
    scratch_dir: str = "/scratch"
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()

    @property
    def instance_labels(self) -> Mapping[str, str]:
        """The label by which the cluster keeps one installation's controller from another's tenants."""
        return {names.INSTANCE: names.instance(self.platform_namespace, self.release)}
