"""What an installation looks like on its cluster, by its settings."""

from __future__ import annotations

from torpor_hub.podspecs.shape import ClusterShape
from torpor_hub.settings import Settings

NAME, INSTANCE = "app.kubernetes.io/name", "app.kubernetes.io/instance"
CHART = "torpor"


def shape_of(settings: Settings) -> ClusterShape:
    """Return what objects on the cluster need to know of the installation. The chart names everything by the same rules."""
    cluster, registry = settings.cluster, settings.registry
    return ClusterShape(
        platform_namespace=cluster.namespace,
        release=cluster.instance,
        fullname=cluster.fullname,
        namespace_prefix=cluster.namespace_prefix,
        agent_namespace=cluster.agent_namespace,
        platform_labels={NAME: CHART, INSTANCE: cluster.instance},
        registry_host=registry.host,
        pull_secret=cluster.pull_secret,
        hub_account=f"{cluster.fullname}-hub",
        server_account=f"{cluster.fullname}-server",
        api_account=f"{cluster.fullname}-api",
        tenant_hub_role=f"{cluster.fullname}-tenant-hub",
        tenant_controller_role=f"{cluster.fullname}-tenant-controller",
        storage_class=cluster.homes.storage_class,
        home_access_mode=cluster.homes.access_mode,
        home_bytes=cluster.homes.size_bytes,
        dns_ports=cluster.dns_ports,
        dns_namespace=cluster.dns_namespace,
        dns_labels=cluster.dns_labels,
        egress=cluster.egress,
        server_port=settings.server.port,
        hub_port=settings.hub.port,
        workspace_root=settings.paths.workspace,
        home_dir=settings.paths.home,
        node_selector=cluster.node_selector,
        tolerations=cluster.tolerations,
    )
