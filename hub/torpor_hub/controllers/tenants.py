"""The loop for tenants on a cluster: each one's namespace, walls, quota and homes, kept as they should be."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torpor_hub.cluster import kinds
from torpor_hub.cluster.client import Cluster
from torpor_hub.cluster.kinds import Json
from torpor_hub.controllers.base import Leadership
from torpor_hub.controllers.upkeep import Outcome, Upkeep
from torpor_hub.errors import ClusterError, ClusterUnavailable, ForeignNamespace, ObjectExists
from torpor_hub.podspecs import names
from torpor_hub.podspecs.shape import ClusterShape
from torpor_hub.podspecs.tenant import TenantPlan, home_object, namespace_object, tenant_objects
from torpor_hub.podspecs.volumes import data_objects
from torpor_hub.services import tenancy
from torpor_hub.settings import Settings
from torpor_hub.stores.base import Store, UnitOfWork

LOG = logging.getLogger(__name__)
COMPLETE = "torpor/complete"
LOOK_EVERY_S = 5.0
AT_ONCE = 4
# A right that was just given takes a moment until it is known everywhere.
TELL_AFTER_S = 15.0
PRUNED = (kinds.ROLE_BINDING, kinds.NETWORK_POLICY)


@dataclass
class Pass:
    """One look at one tenant: what it is to have, what was done, and whether all of it could be seen.

    ``complete``: everything was there once, so that what is missing now was removed by somebody; ``marked``: the namespace
    says so itself.
    """

    plan: TenantPlan
    namespace: str
    marked: bool
    complete: bool
    whole: bool = True
    done: dict[Outcome, list[str]] = field(default_factory=dict)

    def note(self, outcome: Outcome, thing: Mapping[str, Any], *, first: bool = False) -> None:
        """Take down what became of an object; ``first``: it may be missing because it is new."""
        if outcome is Outcome.UNKNOWN:
            self.whole = False
        if outcome is Outcome.MADE and self.complete and not first:
            outcome = Outcome.REPAIRED
        self.done.setdefault(outcome, []).append(f"{thing['kind']} {thing['metadata']['name']}")


class TenantController:
    """Keeps every tenant of the records on the cluster. A tenant that is no more keeps its namespace and its homes.

    ``cluster`` is used within one event loop; :meth:`aclose` there ends what is followed.
    """

    def __init__(
        self, store: Store, settings: Settings, cluster: Cluster, shape: ClusterShape, leadership: Leadership
    ) -> None:
        self._store = store
        self._settings = settings
        self._cluster = cluster
        self._shape = shape
        self._lead = leadership
        self._upkeep = Upkeep(cluster)
        self._plans: list[TenantPlan] = []
        self._look_at = 0.0
        self._homes: set[tuple[str, str]] = set()
        self._complete: set[str] = set()
        self._failing: dict[str, float] = {}
        self._told: dict[str, str] = {}
        self._source: Json = settings.cluster.data_source
        self._inside: set[str] = set()
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def aclose(self) -> None:
        """Stop following."""
        await self._upkeep.aclose()

    async def turn(self) -> None:
        """Look at every tenant where a wish or a fact has changed, and now and then at all of them."""
        plans = await asyncio.to_thread(self._load)
        new = self._upkeep.anything_new()
        if plans == self._plans and not new and time.monotonic() < self._look_at:
            return
        self._plans, self._look_at = plans, time.monotonic() + LOOK_EVERY_S
        self._inside &= {found for plan in plans if (found := self._namespace_name(plan))}
        self._upkeep.follow(self._inside)
        if await self._upkeep.sees(kinds.NAMESPACE) and await self._upkeep.sees(kinds.ROLE_BINDING):
            await asyncio.gather(*map(self._keep, plans))

    def _namespace_name(self, plan: TenantPlan) -> str:
        try:
            return names.namespace(self._shape.namespace_prefix, plan.name)
        except ClusterError:
            return ""

    def _load(self) -> list[TenantPlan]:
        with self._store.read() as tx:
            return tenancy.plans(tx, self._settings)

    async def _keep(self, plan: TenantPlan) -> None:
        async with self._at_once:
            try:
                await self._look(plan)
            except ForeignNamespace as error:
                await self._tell(plan, str(error))
            except ClusterUnavailable as error:
                LOG.warning("tenant %s: %s", plan.name, error)
            except ClusterError as error:
                LOG.warning("tenant %s: %s", plan.name, error)
                if time.monotonic() - self._failing.setdefault(plan.id, time.monotonic()) > TELL_AFTER_S:
                    await self._tell(plan, str(error))
            else:
                self._failing.pop(plan.id, None)
                await self._tell(plan, "")

    async def _look(self, plan: TenantPlan) -> None:
        namespace, outcome = await self._own_namespace(plan)
        marked = COMPLETE in _annotations(namespace)
        look = Pass(plan, namespace["metadata"]["name"], marked, complete=marked or plan.id in self._complete)
        look.note(outcome, namespace)
        try:
            await self._keep_contents(look)
            if look.whole:
                self._complete.add(plan.id)
                await self._upkeep.keep(_namespace(plan, self._shape, complete=True))
        finally:
            await self._record(look)

    async def _keep_contents(self, look: Pass) -> None:
        around = _namespace(look.plan, self._shape, complete=look.marked)
        look.note(await self._upkeep.keep(around), around)
        wanted = tenant_objects(look.plan, self._shape)
        own, *others = wanted
        look.note(await self._upkeep.keep(own), own)
        if not await self._enter(look.namespace):
            look.whole = False
            return
        for thing in others:
            look.note(await self._upkeep.keep(thing), thing)
        await self._prune(look, wanted)
        await self._keep_homes(look)
        if self._source:
            await self._keep_data(look, self._source)

    async def _enter(self, namespace: str) -> bool:
        """Return whether the inside of a namespace can be seen, now that the platform has its rights there."""
        if namespace not in self._inside:
            self._inside.add(namespace)
            self._upkeep.follow(self._inside)
        return await self._upkeep.sees_all(namespace)

    async def _own_namespace(self, plan: TenantPlan) -> tuple[Json, Outcome]:
        """Return the tenant's namespace, made where there is none, and whether it was.

        Raises:
            ForeignNamespace: when one of that name is somebody else's, or is being removed.
        """
        wanted = _namespace(plan, self._shape, complete=False)
        name = wanted["metadata"]["name"]
        found, outcome = self._upkeep.found(kinds.NAMESPACE, name), Outcome.SAME
        if found is None:
            try:
                found, outcome = await self._upkeep.make(wanted), Outcome.MADE
            except ObjectExists:
                found = await self._cluster.get(kinds.NAMESPACE, name)
        _require_ours(found, plan, self._shape)
        return found, outcome

    async def _prune(self, look: Pass, wanted: list[Json]) -> None:
        for kind in PRUNED:
            keep = [thing["metadata"]["name"] for thing in wanted if kinds.of(thing) is kind]
            for name in await self._upkeep.prune(kind, look.namespace, keep):
                look.note(Outcome.REPAIRED, {"kind": kind.name, "metadata": {"name": name}})

    async def _keep_homes(self, look: Pass) -> None:
        for user_id in look.plan.user_ids:
            home = home_object(look.plan, user_id, self._shape)
            outcome = await self._upkeep.keep_there(home)
            seen = (look.plan.id, user_id) in self._homes
            look.note(outcome, home, first=not seen)
            if outcome is not Outcome.UNKNOWN:
                self._homes.add((look.plan.id, user_id))

    async def _keep_data(self, look: Pass, source: Json) -> None:
        """Keep a volume over the platform's own data, and the tenant's claim of it."""
        volume, claim = data_objects(look.plan, look.plan.id, source, self._shape)
        for thing in (volume, claim):
            look.note(await self._upkeep.keep_there(thing), thing, first=True)
        found = self._upkeep.found(kinds.VOLUME, volume["metadata"]["name"])
        if found is not None and found.get("status", {}).get("phase") == "Released":
            # Its claim was removed and made again: the volume waits for the old one, which never comes back.
            await self._upkeep.change(found, {"spec": {"claimRef": {"uid": None, "resourceVersion": None}}})
            look.note(Outcome.REPAIRED, volume)

    async def _record(self, look: Pass) -> None:
        told = {outcome: look.done.get(outcome, []) for outcome in (Outcome.MADE, Outcome.UPDATED, Outcome.REPAIRED)}
        if not any(told.values()):
            return
        LOG.info("tenant %s: %s", look.plan.name, {str(key): value for key, value in told.items() if value})

        def write(tx: UnitOfWork) -> None:
            for outcome, objects in told.items():
                tenancy.changed(tx, look.plan.id, outcome, objects)

        await self._lead.record(write)

    async def _tell(self, plan: TenantPlan, sentence: str) -> None:
        if self._told.get(plan.id) == sentence:
            return
        self._told[plan.id] = sentence
        await self._lead.record(lambda tx: tenancy.problem(tx, plan.id, sentence))


def _namespace(plan: TenantPlan, shape: ClusterShape, *, complete: bool) -> Json:
    made = namespace_object(plan, shape)
    marks = {COMPLETE: "true"} if complete else {}
    return {**made, "metadata": made["metadata"] | {"annotations": marks}}


def _require_ours(found: Json, plan: TenantPlan, shape: ClusterShape) -> None:
    name, labels = found["metadata"]["name"], found["metadata"].get("labels") or {}
    if labels.get(names.MANAGED_BY) != names.OWNER:
        raise ForeignNamespace(
            f"The namespace '{name}' exists and is not the platform's. Rename the tenant, or remove that namespace."
        )
    ours = shape.instance_labels[names.INSTANCE]
    # One without the label is of an older version, and gets it.
    if labels.get(names.INSTANCE, ours) != ours:
        raise ForeignNamespace(
            f"The namespace '{name}' belongs to another installation of the platform, {labels[names.INSTANCE]}. Rename the tenant,"
            " or give the installations prefixes of their own."
        )
    if labels.get(names.TENANT) != plan.id:
        raise ForeignNamespace(
            f"The namespace '{name}' belongs to another tenant, {labels.get(names.TENANT, 'without an id')}. If it is the same "
            f"one under a new id, set its label {names.TENANT} to {plan.id}."
        )
    if "deletionTimestamp" in found["metadata"]:
        raise ForeignNamespace(f"The namespace '{name}' is being removed; it is made again when that is done.")


def _annotations(thing: Json) -> Mapping[str, str]:
    return thing["metadata"].get("annotations") or {}
