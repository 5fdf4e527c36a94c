"""What a pod of a user's code must not have, checked over the whole pod before any object is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torpor_hub.domain.units import Amount, cores, size
from torpor_hub.domain.workspaces import Mount
from torpor_hub.podspecs import names
from torpor_hub.podspecs.quantities import GPU, amount
from torpor_hub.podspecs.shape import ClusterShape

Json = Mapping[str, Any]
HOST_NAMESPACES = ("hostNetwork", "hostPID", "hostIPC")
VOLUMES = ("emptyDir", "persistentVolumeClaim")
# Each would end or restart a container that stands frozen while it is saved, or run something at its start or end.
ENDERS = ("livenessProbe", "startupProbe", "lifecycle")
MARKS = (names.MANAGED_BY, names.COMPONENT, names.TENANT, names.USER)


@dataclass(frozen=True)
class TenantPolicy:
    """What one tenant's pods may be. ``images`` are prefixes that end in ``:``, ``@`` or ``/``; ``largest`` bounds the pod.

    ``data_claims`` may be mounted to read; the only claim to write is the home of the user whom the pod's label names.
    ``by_digest``: images are named by their digest, as they are wherever the platform has a registry.
    """

    tenant_id: str
    namespace: str
    service_account: str
    images: tuple[str, ...]
    largest: Amount
    data_claims: frozenset[str] = frozenset()
    by_digest: bool = True


class Run(Protocol):
    """What a policy is made from: a ``domain.WorkspaceRun`` or a ``runners.base.JobRun``."""

    @property
    def tenant(self) -> str:
        """The tenant's name."""

    @property
    def tenant_id(self) -> str:
        """The tenant's id."""

    @property
    def image(self) -> str:
        """What its pod runs."""

    @property
    def amount(self) -> Amount:
        """What its pod gets."""

    @property
    def mounts(self) -> Sequence[Mount]:
        """The data that it may read."""


def policy_of(run: Run, shape: ClusterShape, repositories: str) -> TenantPolicy:
    """Return what a run's pod may be, by the run itself. Of saved environments its tenant's own are allowed and no others.

    ``repositories`` is the first part of the names of all repositories in the platform's registry.
    """
    saved = f"{shape.registry_host}/{repositories}/workspaces/"
    return TenantPolicy(
        tenant_id=run.tenant_id,
        namespace=names.namespace(shape.namespace_prefix, run.tenant),
        service_account=shape.service_account,
        images=(f"{saved}{run.tenant}/" if run.image.startswith(saved) else run.image,),
        largest=run.amount,
        data_claims=frozenset(mount.claim for mount in run.mounts),
        by_digest=bool(shape.registry_host),
    )


def violations(pod: Json, policy: TenantPolicy) -> tuple[str, ...]:
    """Return a sentence for everything in ``pod`` that the tenant's policy does not allow; none for a pod in order."""
    spec: Json = pod["spec"]
    containers = [
        container
        for part in ("containers", "initContainers", "ephemeralContainers")
        for container in spec.get(part) or ()
    ]
    return (
        *_identity(pod, policy),
        *_host(spec),
        *_token(spec, policy),
        *_volumes(pod, policy),
        *_secrets(pod, containers),
        *_user(spec, containers),
        *(sentence for container in containers for sentence in _container(container, policy)),
        *_sizes(containers, policy.largest),
    )


def _identity(pod: Json, policy: TenantPolicy) -> Iterator[str]:
    metadata: Json = pod["metadata"]
    labels: Json = metadata.get("labels") or {}
    if metadata.get("namespace") != policy.namespace:
        yield f"The namespace '{metadata.get('namespace')}' is not the tenant's '{policy.namespace}'."
    for label in MARKS:
        if not labels.get(label):
            yield f"The label '{label}' is missing."
    if labels.get(names.TENANT, policy.tenant_id) != policy.tenant_id:
        yield f"The label '{names.TENANT}' names another tenant: '{labels[names.TENANT]}'."


def _host(spec: Json) -> Iterator[str]:
    for key in HOST_NAMESPACES:
        if spec.get(key):
            yield f"'{key}' would share a namespace of the node."
    if spec.get("nodeName"):
        yield f"'nodeName' goes around the scheduler: '{spec['nodeName']}'."
    if spec.get("restartPolicy") != "Never":
        yield "'restartPolicy' is not 'Never': a restart in place would lose what was installed."


def _token(spec: Json, policy: TenantPolicy) -> Iterator[str]:
    if spec.get("automountServiceAccountToken") is not False:
        yield "'automountServiceAccountToken' is not false: the pod would get a token of the cluster."
    if spec.get("serviceAccountName") != policy.service_account:
        yield f"The service account '{spec.get('serviceAccountName')}' is not '{policy.service_account}'."


def _volumes(pod: Json, policy: TenantPolicy) -> Iterator[str]:
    user = (pod["metadata"].get("labels") or {}).get(names.USER, "")
    home = f"home-{user}"
    for volume in pod["spec"].get("volumes") or ():
        name = volume.get("name")
        if "hostPath" in volume:
            yield f"The volume '{name}' is a path of the node: '{volume['hostPath'].get('path')}'."
        elif other := sorted(volume.keys() - {"name", *VOLUMES}):
            yield f"The volume '{name}' is of a kind that is not allowed: {', '.join(other)}."
        elif "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]
            yield from _claim(claim.get("claimName"), home, policy, read_only=bool(claim.get("readOnly")))


def _secrets(pod: Json, containers: Sequence[Json]) -> Iterator[str]:
    """Yield what reads a Secret other than the attempt's own, such as the one that pulls images."""
    own = (pod["metadata"].get("labels") or {}).get(names.ATTEMPT)
    for container in containers:
        whole = [source.get("secretRef") for source in container.get("envFrom") or ()]
        parts = [(entry.get("valueFrom") or {}).get("secretKeyRef") for entry in container.get("env") or ()]
        for reference in filter(None, (*whole, *parts)):
            if reference.get("name") != own:
                yield f"The container '{container.get('name')}' would read the Secret '{reference.get('name')}'."


def _claim(name: str, home: str, policy: TenantPolicy, *, read_only: bool) -> Iterator[str]:
    if name in policy.data_claims and not read_only:
        yield f"The claim '{name}' holds data and may only be mounted to read."
    elif name != home and name not in policy.data_claims:
        yield f"The claim '{name}' is neither the user's home nor data that they may read."


def _user(spec: Json, containers: Sequence[Json]) -> Iterator[str]:
    whole: Json = spec.get("securityContext") or {}
    if whole.get("sysctls"):
        yield "'sysctls' would change the node's kernel settings."
    for container in containers:
        both = {**whole, **(container.get("securityContext") or {})}
        name = container.get("name")
        if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
            yield f"The container '{name}' may run as root."
        if (both.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
            yield f"The container '{name}' does not run under the runtime's seccomp profile."


def _container(container: Json, policy: TenantPolicy) -> Iterator[str]:
    name, image = container.get("name"), str(container.get("image", ""))
    yield from _privileges(name, container.get("securityContext") or {})
    if not image.startswith(policy.images):
        yield f"The image '{image}' is not the tenant's to run; allowed are {', '.join(policy.images) or 'none'}."
    if policy.by_digest and not names.DIGEST.fullmatch(image.rpartition("@")[2]):
        yield f"The image '{image}' is not named by its digest."
    for key in ENDERS:
        if container.get(key):
            yield f"The container '{name}' has '{key}', which could end it while it is saved."
    if any(port.get("hostPort") for port in container.get("ports") or ()):
        yield f"The container '{name}' would take a port of the node."


def _privileges(name: object, security: Json) -> Iterator[str]:
    capabilities: Json = security.get("capabilities") or {}
    if security.get("privileged"):
        yield f"The container '{name}' is privileged."
    if security.get("allowPrivilegeEscalation") is not False:
        yield f"The container '{name}' could gain privileges."
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield f"The container '{name}' keeps capabilities: {', '.join(capabilities.get('add') or ['not all dropped'])}."
    if security.get("procMount", "Default") != "Default":
        yield f"The container '{name}' would see all of '/proc'."


def _sizes(containers: Sequence[Json], largest: Amount) -> Iterator[str]:
    total = Amount()
    for container in containers:
        limits = (container.get("resources") or {}).get("limits") or {}
        if missing := [key for key in ("cpu", "memory") if key not in limits]:
            yield f"The container '{container.get('name')}' has no limit on {' and '.join(missing)}."
        if "ephemeral-storage" in limits:
            yield f"The container '{container.get('name')}' has a limit on disk, over which it would be removed."
        try:
            total += amount(limits)
        except ValueError as error:
            yield f"A limit of the container '{container.get('name')}' cannot be read: {error}"
    if total.cpu_milli > largest.cpu_milli:
        yield f"CPU: {cores(total.cpu_milli)} asked, at most {cores(largest.cpu_milli)} allowed."
    if total.memory_bytes > largest.memory_bytes:
        yield f"Memory: {size(total.memory_bytes)} asked, at most {size(largest.memory_bytes)} allowed."
    if total.gpu_count > largest.gpu_count:
        yield f"GPUs ({GPU}): {total.gpu_count} asked, at most {largest.gpu_count} allowed."
