"""The controller's parts on a cluster: workspaces and jobs are pods in their tenants' namespaces, images are in a registry."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from sqlalchemy import select

from torpor_hub.cluster import access
from torpor_hub.cluster.client import Cluster
from torpor_hub.cluster.shape import shape_of
from torpor_hub.controllers.base import Waker, loop
from torpor_hub.controllers.profiles import ProfileController
from torpor_hub.controllers.tenants import TenantController
from torpor_hub.domain.units import Amount
from torpor_hub.errors import RegistryUnavailable
from torpor_hub.oci.layout import Layout
from torpor_hub.oci.references import Reference
from torpor_hub.oci.registry import Registry
from torpor_hub.oci.registry_auth import Account, Address, read_accounts, reader_of
from torpor_hub.places.kubernetes import KubernetesPlace
from torpor_hub.programs.control_parts import Around, ControlParts, Loop
from torpor_hub.runners.kubernetes import KubernetesRunner
from torpor_hub.settings import Settings
from torpor_hub.stores.tables import Tenant

PULL_SECRETS = "the pull secrets that `images.pullSecrets` names"


def parts(around: Around) -> ControlParts:
    """Return the parts, with the keeping of tenants among the loops. The nodes' agents are programs of their own.

    Raises:
        StartupError: when no cluster is named.
    """
    settings, shape = around.settings, shape_of(around.settings)
    cluster = Cluster(access.find(relax_x509=settings.cluster.relax_x509))
    registry = registry_of(settings)
    limits, prefix = settings.limits, settings.registry.prefix

    def tenants() -> Collection[str]:
        with around.store.read() as tx:
            return tx.session.scalars(select(Tenant.name)).all()

    overhead = Amount(settings.cluster.node_overhead_cpu_milli, settings.cluster.node_overhead_memory_bytes)
    place = KubernetesPlace(cluster, shape, registry, tenants, overhead=overhead)
    runner = KubernetesRunner(cluster, shape, tenants, repositories=prefix, patience_s=limits.job_start_s)
    keeper = TenantController(around.store, settings, cluster, shape, around.lead)
    profiles = ProfileController(around.store, settings, registry, around.lead, reach=reach_of(settings))

    def loops() -> Sequence[Loop]:
        return [
            loop("tenants", keeper.turn, Waker(around.feed, ("tenant", "user")), around.lead),
            loop("profiles", profiles.turn, Waker(around.feed, ("profile",)), around.lead),
        ]

    async def close() -> None:
        await keeper.aclose()
        await place.aclose()
        await cluster.aclose()
        if registry is not None:
            registry.close()

    return ControlParts(
        place=place,
        runner=runner,
        # Without a registry nothing was ever saved, and an empty layout has nothing to forget.
        images=registry or Layout(settings.images_dir),
        loops=loops,
        close=close,
        ends_with_platform=False,
    )


def registry_of(settings: Settings) -> Registry | None:
    """Return the registry of environments, as the account that may write; None where there is none."""
    registry = settings.registry
    if not registry.host:
        return None
    return Registry(Address(registry.host, insecure=registry.insecure, **settings.registry_account("push")))


def reach_of(settings: Settings) -> Callable[[Reference], Registry]:
    """Return what gives the registry of an image beside the platform's own, with the account that the pull secrets have for it.

    They are read anew each time: the cluster writes a new password into the pod while it runs.
    """

    def reach(image: Reference) -> Registry:
        account = reader_of(_pull_accounts(settings), image.name) or Account()
        return Registry(Address(image.host, False, account.username, account.password, PULL_SECRETS))

    return reach


def _pull_accounts(settings: Settings) -> dict[str, Account]:
    """Return the accounts of all pull secrets by registry; of two for the same one, that of the secret that is named first."""
    found: dict[str, Account] = {}
    for name, content in settings.pull_secrets().items():
        try:
            accounts = read_accounts(content)
        except ValueError as error:
            raise RegistryUnavailable(
                f"The pull secret {name.partition('-')[2]} of `images.pullSecrets` is no docker config ({error}); make it anew."
            ) from error
        found |= {registry: account for registry, account in accounts.items() if registry not in found}
    return found
