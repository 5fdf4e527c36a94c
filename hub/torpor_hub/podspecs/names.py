"""Names and labels of everything that the platform makes on a cluster: from ids and tenants' names, never from other text."""

from __future__ import annotations

import re

from torpor_hub.domain.names import is_name
from torpor_hub.errors import ClusterError

MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = "app.kubernetes.io/component"
TENANT = "torpor/tenant"
# Of what a controller may touch in the whole cluster: which installation's it is.
INSTANCE = "torpor/instance"
WORKSPACE = "torpor/workspace"
GRANT = "torpor/grant"
USER = "torpor/user"
JOB = "torpor/job"
ATTEMPT = "torpor/attempt"
# Of nodes, and set by admins.
DRAIN = "torpor/drain"
OWNER = "torpor"
MANAGED = f"{MANAGED_BY}={OWNER}"
LONGEST, LONGEST_SUBDOMAIN = 63, 253
LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def namespace(prefix: str, tenant: str) -> str:
    """Return the namespace of the tenant of that name.

    Raises:
        ClusterError: when the two do not make a namespace's name.
    """
    if not is_name(tenant):
        raise ClusterError(f"'{tenant}' cannot be a tenant's name, and so not a namespace's.")
    return _label(prefix + tenant)


def pod(workspace_id: str) -> str:
    """Return the name of a workspace's pod: the workspace's id."""
    return _label(workspace_id)


def job(attempt: str) -> str:
    """Return the name of an attempt's Job: the attempt's own, ``job-…-a1``."""
    return _label(attempt)


def home_claim(user_id: str) -> str:
    """Return the name of the claim that holds a member's home."""
    return _label(f"home-{user_id}")


def data_claim(source_id: str) -> str:
    """Return the name of the claim that holds a source's files."""
    return _label(f"data-{source_id}")


def data_volume(namespace_name: str, source_id: str) -> str:
    """Return the name of a tenant's own volume over a source's files; volumes share one space of names."""
    return _label(f"{namespace_name}-{source_id}", LONGEST_SUBDOMAIN)


def managed_labels(component: str, tenant_id: str, **more: str) -> dict[str, str]:
    """Return the labels of an object in a tenant's namespace; ``more`` are the ids of ``workspace``, ``grant``, ``user`` …"""
    ids = {f"torpor/{key}": _label(value) for key, value in more.items() if value}
    return {MANAGED_BY: OWNER, COMPONENT: component, TENANT: _label(tenant_id), **ids}


def instance(platform_namespace: str, release: str) -> str:
    """Return what tells one installation from all others of a cluster, as a label's value. The chart makes it by the same rule."""
    return f"{platform_namespace}.{release}"[:LONGEST].strip("-.")


def profile_repository(profile: str) -> str:
    """Return the repository of a profile's image, without the registry's host."""
    return f"torpor/profiles/{profile}"


def workspace_repository(tenant: str, workspace_id: str) -> str:
    """Return the repository of a workspace's saved environments, without the registry's host."""
    return f"torpor/workspaces/{tenant}/{workspace_id}"


def image(host: str, repository: str, digest: str) -> str:
    """Return an image as a pod names it: ``<host>/<repository>@sha256:…``.

    Raises:
        ClusterError: when ``digest`` is none.
    """
    if not DIGEST.fullmatch(digest):
        raise ClusterError(f"'{digest}' is not the digest of an image in {repository}.")
    return f"{host}/{repository}@{digest}"


def selector(**ids: str) -> str:
    """Return the label selector of what the platform made, narrowed by ids: ``selector(workspace="ws-…")``."""
    return ",".join([MANAGED, *(f"torpor/{key}={_label(value)}" for key, value in ids.items())])


def _label(text: str, longest: int = LONGEST) -> str:
    if len(text) > longest or not LABEL.fullmatch(text):
        raise ClusterError(f"'{text}' cannot name an object: at most {longest} lower-case letters, digits and hyphens.")
    return text
