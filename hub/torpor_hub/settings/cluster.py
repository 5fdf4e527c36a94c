"""What only an installation on a cluster has: its registry, its namespaces, its homes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from torpor_hub.settings.base import GIB, Closed


class PathSettings(Closed):
    """Where things lie in a workspace. The names in braces are filled in for each."""

    workspace: str = Field(
        "{state}/workspaces/{workspace}", description="The workspace's own folder; its environment is `env` in it."
    )
    home: str = Field("{state}/homes/{tenant}/{user}", description="The home of a user in a tenant.")
    data: str = Field("{state}/data", description="Data that the platform brings along or that people put there.")


class RegistrySettings(Closed):
    """The OCI registry that holds environments and the images of profiles."""

    host: str = Field("", description="Host and port, as nodes name it in an image; empty: no registry, and no sleep.")
    insecure: bool = Field(False, description="Whether the platform speaks plain HTTP to it.")
    prefix: str = Field("torpor", description="The first part of every repository's name.")


class HomeSettings(Closed):
    """The persistent volume of each user in each tenant."""

    storage_class: str = Field("", description="The StorageClass; empty: the cluster's default.")
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"] = Field(
        "ReadWriteOnce", description="With ReadWriteOnce all workspaces and jobs of one user in a tenant share a node."
    )
    size_bytes: int = Field(10 * GIB, gt=0, description="The size that is asked for.")


class ClusterSettings(Closed):
    """The cluster as the platform uses it."""

    namespace: str = Field("torpor", description="The platform's own namespace.")
    agent_namespace: str = Field("torpor-agent", description="The namespace of the nodes' agents.")
    fullname: str = Field(
        "torpor", description="What the names of the platform's own services, accounts and roles begin with."
    )
    instance: str = Field("torpor", description="The release's name, a label of all of the platform's own pods.")
    namespace_prefix: str = Field("torpor-", description="What the name of a tenant's namespace begins with.")
    pull_secret: str = Field("torpor-pull", description="The pull secret that the controller keeps in each tenant.")
    homes: HomeSettings = HomeSettings()
    dns_namespace: str = Field("kube-system", description="The namespace of the cluster's DNS.")
    dns_labels: dict[str, str] = Field({"k8s-app": "kube-dns"}, description="Labels of the DNS's pods.")
    dns_ports: tuple[int, ...] = Field((53, 5353), description="The ports at which those pods listen.")
    egress: tuple[dict[str, Any], ...] = Field(
        (),
        description="What workspaces and jobs may reach beside the platform: rules as a NetworkPolicy's `egress` has them.",
    )
    node_selector: dict[str, str] = Field(
        default_factory=dict, description="Labels of the nodes for workspaces and jobs."
    )
    tolerations: tuple[dict[str, Any], ...] = Field(
        (), description="Taints that workspaces and jobs tolerate, as a pod has them."
    )
    node_overhead_cpu_milli: int = Field(
        200, ge=0, description="CPU of each node that other pods ask for, in thousandths of a core; it is not lent."
    )
    node_overhead_memory_bytes: int = Field(
        GIB // 4, ge=0, description="Memory of each node that other pods ask for, in bytes; it is not lent."
    )
    relax_x509: bool = Field(
        False, description="Accept a cluster certificate authority without key usage, which Python 3.13 refuses."
    )
    data_source: dict[str, Any] = Field(
        default_factory=dict,
        description="Where the platform's own data lies, as a PersistentVolume says it, such as `{nfs: …}`; members may read it.",
    )
