"""Keeping objects on the cluster as they should be: looked at in watches, and written only where they differ."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Any

from torpor_hub.cluster import kinds
from torpor_hub.cluster.client import Cluster
from torpor_hub.cluster.kinds import Json, Kind
from torpor_hub.cluster.watch import Watch
from torpor_hub.errors import ObjectConflict, ObjectExists, ObjectMissing
from torpor_hub.podspecs import drift, names, tenant

WATCH_S = 120.0
SEEN_WITHIN_S = 5.0
OF_TENANTS = f"{names.MANAGED},{names.COMPONENT}={tenant.COMPONENT}"
EVERYWHERE = (kinds.NAMESPACE, kinds.ROLE_BINDING)
IN_NAMESPACES = (
    kinds.NETWORK_POLICY,
    kinds.LIMIT_RANGE,
    kinds.QUOTA,
    kinds.SERVICE_ACCOUNT,
    kinds.DISRUPTION_BUDGET,
    kinds.SECRET,
)


class Outcome(StrEnum):
    """What became of one object. ``UNKNOWN``: it cannot be seen now, so that it was left alone."""

    SAME = "same"
    MADE = "made"
    UPDATED = "updated"
    REPAIRED = "repaired"
    UNKNOWN = "unknown"


class Upkeep:
    """Follows what tenants have, and makes it what it should be. Nothing is written where nothing differs."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._watches = {kind: Watch(cluster, kind, labels=OF_TENANTS, within_s=WATCH_S) for kind in IN_NAMESPACES}
        self._watches |= {kind: Watch(cluster, kind, labels=OF_TENANTS, within_s=WATCH_S) for kind in EVERYWHERE}
        self._watches |= {kind: Watch(cluster, kind, labels=names.MANAGED) for kind in (kinds.CLAIM, kinds.VOLUME)}
        self._settled: dict[tuple[Kind, str, str], tuple[Json, Json]] = {}
        self._events: list[asyncio.Event] = []

    async def aclose(self) -> None:
        """Stop following."""
        for watch in self._watches.values():
            await watch.aclose()

    def follow(self, namespaces: Collection[str]) -> None:
        """Follow what lies in no namespace, and what lies in these."""
        for kind, watch in self._watches.items():
            watch.follow(("",) if kind in (*EVERYWHERE, kinds.VOLUME) else namespaces)

    def anything_new(self) -> bool:
        """Return whether anything has changed since this was asked last."""
        new = not self._events or any(event.is_set() for event in self._events)
        if new:
            self._events = [watch.changed for watch in self._watches.values()]
        return new

    async def sees(self, kind: Kind, namespace: str = "") -> bool:
        """Return whether all objects of a kind in a namespace are seen, after giving a new watch some time."""
        return await self._watches[kind].known(namespace, within_s=SEEN_WITHIN_S)

    async def sees_all(self, namespace: str) -> bool:
        """Return whether everything in a namespace is seen."""
        seen = await asyncio.gather(*(self.sees(kind, namespace) for kind in (*IN_NAMESPACES, kinds.CLAIM)))
        return all(seen)

    def found(self, kind: Kind, name: str, namespace: str = "") -> Json | None:
        """Return an object as it was last seen; None where it was not."""
        return self._watches[kind].snapshot().objects.get((namespace, name))

    async def keep(self, wanted: Mapping[str, Any]) -> Outcome:
        """Make an object what it should be, in all that is the platform's own."""
        kind, (namespace, name), wish = kinds.of(wanted), kinds.place(wanted), drift.marked(wanted)
        if not self._watches[kind].snapshot().knows(namespace):
            return Outcome.UNKNOWN
        found = self.found(kind, name, namespace)
        if found is not None and self._is_fine(wish, found):
            return Outcome.SAME
        if found is not None:
            await self._clear(wish, found)
        made = await self._cluster.apply(wish)
        if drift.differs(wish, made):
            self._settled[kind, namespace, name] = (wish, drift.content(made))
        await self._seen(kind, namespace, name, before=found, after=made)
        if found is None:
            return Outcome.MADE
        return Outcome.UPDATED if drift.wish_changed(wish, found) else Outcome.REPAIRED

    async def make(self, wanted: Mapping[str, Any]) -> Json:
        """Make an object that is not there and return it.

        Raises:
            ObjectExists: when one of that name is there; it was not touched.
        """
        kind, (namespace, name) = kinds.of(wanted), kinds.place(wanted)
        made = await self._cluster.create(drift.marked(wanted))
        await self._seen(kind, namespace, name, before=None, after=made)
        return made

    async def keep_there(self, wanted: Mapping[str, Any]) -> Outcome:
        """Make an object that is not there, and leave one that is as it is, but for its labels."""
        kind, (namespace, name), wish = kinds.of(wanted), kinds.place(wanted), drift.marked(wanted)
        if not self._watches[kind].snapshot().knows(namespace):
            return Outcome.UNKNOWN
        found = self.found(kind, name, namespace)
        if found is not None:
            if not drift.lacks_labels(wish, found):
                return Outcome.SAME
            await self.change(found, {"metadata": {mark: wish["metadata"][mark] for mark in drift.MARKS}})
            return Outcome.UPDATED if drift.wish_changed(wish, found) else Outcome.REPAIRED
        try:
            await self.make(wanted)
        except ObjectExists:
            labels = {"metadata": {"labels": wanted["metadata"]["labels"]}}
            made = await self._cluster.patch(kind, name, labels, namespace)
            await self._seen(kind, namespace, name, before=None, after=made)
            return Outcome.REPAIRED
        return Outcome.MADE

    async def change(self, found: Json, patch: Mapping[str, Any]) -> None:
        """Change an object that was found, and return once that is seen."""
        kind, (namespace, name) = kinds.of(found), kinds.place(found)
        made = await self._cluster.patch(kind, name, patch, namespace)
        await self._seen(kind, namespace, name, before=found, after=made)

    async def prune(self, kind: Kind, namespace: str, wanted: Iterable[str]) -> list[str]:
        """Remove what carries the platform's labels and is not wanted; return its names."""
        keep = set(wanted)
        removed = []
        for (place, name), found in self._watches[kind].snapshot().objects.items():
            if place == namespace and name not in keep:
                await self._delete(kind, found)
                await self._seen(kind, namespace, name, before=found, after=None)
                removed.append(name)
        return removed

    def _is_fine(self, wish: Json, found: Json) -> bool:
        if not drift.differs(wish, found):
            return True
        key = (kinds.of(wish), *kinds.place(wish))
        # Where the server says the same in other words, its own words are what is expected from then on.
        return self._settled.get(key) == (wish, drift.content(found))

    async def _clear(self, wish: Json, found: Json) -> None:
        """Remove what an application would leave: what others added, and what cannot be changed."""
        kind, (namespace, name) = kinds.of(wish), kinds.place(wish)
        if drift.must_be_remade(wish, found):
            await self._delete(kind, found)
            return
        excess = drift.excess(wish, found)
        if excess:
            with contextlib.suppress(ObjectMissing):
                await self._cluster.patch(kind, name, excess, namespace)

    async def _delete(self, kind: Kind, found: Json) -> None:
        namespace, name = kinds.place(found)
        with contextlib.suppress(ObjectMissing, ObjectConflict):
            await self._cluster.delete(kind, name, namespace, uid=found["metadata"]["uid"])

    async def _seen(self, kind: Kind, namespace: str, name: str, *, before: Json | None, after: Json | None) -> None:
        """Return once the watch shows something else than before a change, so that it is not made, or told, twice."""
        watch = self._watches[kind]
        if _version(before) == _version(after):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEEN_WITHIN_S):
                while True:
                    changed = watch.changed
                    if _version(self.found(kind, name, namespace)) != _version(before):
                        return
                    await changed.wait()


def _version(thing: Json | None) -> str:
    return str(thing["metadata"]["resourceVersion"]) if thing is not None else ""
