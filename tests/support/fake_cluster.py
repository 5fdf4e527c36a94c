"""An API server in this process that fails as it is told; what succeeds is tested on a real one."""

from __future__ import annotations

import asyncio
import copy
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from torpor_hub.cluster import kinds
from torpor_hub.cluster.client import Cluster, Event, Listing
from torpor_hub.cluster.kinds import Json, Kind
from torpor_hub.errors import ClusterUnavailable, Denied, ObjectConflict, ObjectExists, ObjectMissing, VersionExpired

Place = tuple[Kind, str, str]


class FakeCluster:
    """Keeps objects and tells watches of them.

    ``down``: it does not answer. ``denied`` are namespaces where nothing may be read. ``silent``: watches hear nothing new.
    ``stuck``: pods that are deleted stay, as on a node that is off. ``meddle`` is called before each deletion.
    """

    def __init__(self) -> None:
        self.objects: dict[Place, Json] = {}
        self.log_of: dict[str, str] = {}
        self.asked: list[str] = []
        self.down = False
        self.silent = False
        self.stuck = False
        self.denied: set[str] = set()
        self.meddle: Callable[[], None] = lambda: None
        self._versions = itertools.count(1)
        self._changed_at = 0
        self._watches: list[tuple[Kind, str, asyncio.Queue[Event | None]]] = []

    @property
    def client(self) -> Cluster:
        """The same, as the platform takes it."""
        return cast(Cluster, self)

    def put(self, thing: Mapping[str, Any]) -> Json:
        """Make or change an object behind everybody's back."""
        made: Json = copy.deepcopy(dict(thing))
        place = (kinds.of(made), *kinds.place(made))
        held = self.objects.get(place)
        metadata = made["metadata"]
        metadata.setdefault("uid", held["metadata"]["uid"] if held else str(uuid.uuid4()))
        metadata.setdefault("creationTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        metadata["resourceVersion"] = str(next(self._versions))
        self.objects[place] = made
        self._tell("MODIFIED" if held else "ADDED", made)
        return copy.deepcopy(made)

    def drop(self, kind: Kind, name: str, namespace: str = "") -> None:
        """Remove an object behind everybody's back."""
        self._tell("DELETED", self.objects.pop((kind, namespace, name)))

    def break_watches(self, namespace: str | None = None) -> None:
        """End all watches, or those of a namespace, so that they have to be begun anew."""
        broken = [mine for mine in self._watches if namespace in (None, mine[1])]
        for mine in broken:
            self._watches.remove(mine)
            mine[2].put_nowait(None)

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Json:
        self._ask("GET", kind, namespace)
        return copy.deepcopy(self._held(kind, name, namespace))

    async def list(self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = "") -> Listing:
        self._ask("LIST", kind, namespace)
        wanted = _fields(fields)
        found = [
            copy.deepcopy(thing)
            for (of, place, name), thing in self.objects.items()
            if of is kind and namespace in ("", place) and wanted.get("metadata.name", name) == name
        ]
        return Listing(tuple(found), str(next(self._versions)))

    async def create(self, thing: Mapping[str, Any], *, dry_run: bool = False) -> Json:
        kind, (namespace, name) = kinds.of(thing), kinds.place(thing)
        self._ask("POST", kind, namespace)
        if (kind, namespace, name) in self.objects:
            raise ObjectExists(f"{name} exists")
        return self.put(thing)

    async def apply(self, thing: Mapping[str, Any], *, dry_run: bool = False) -> Json:
        kind, (namespace, name) = kinds.of(thing), kinds.place(thing)
        self._ask("PATCH", kind, namespace)
        held = self.objects.get((kind, namespace, name), {})
        made = _merged(held, thing)
        return self.put(made) if made != held else copy.deepcopy(held)

    async def patch(self, kind: Kind, name: str, change: Mapping[str, Any], namespace: str = "") -> Json:
        self._ask("PATCH", kind, namespace)
        return self.put(_merged(self._held(kind, name, namespace), change))

    async def delete(
        self, kind: Kind, name: str, namespace: str = "", *, uid: str = "", grace_s: int | None = None, **_: Any
    ) -> None:
        self._ask("DELETE", kind, namespace)
        self.meddle()
        held = self._held(kind, name, namespace)
        if uid and held["metadata"]["uid"] != uid:
            raise ObjectConflict("the UID in the precondition is another one")
        if self.stuck:
            self.put({**held, "metadata": {**held["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}})
        else:
            self.drop(kind, name, namespace)

    async def logs(self, pod: str, namespace: str, *, lines: int, container: str = "") -> str:
        self._ask("GET", kinds.POD, namespace)
        self._held(kinds.POD, pod, namespace)
        return "\n".join(self.log_of.get(pod, "").splitlines()[-lines:])

    async def watch(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        version: str,
        labels: str = "",
        fields: str = "",
        within_s: float = 30.0,
    ) -> AsyncIterator[Event]:
        self._ask("WATCH", kind, namespace)
        if int(version) < self._changed_at:
            raise VersionExpired("list again")
        news: asyncio.Queue[Event | None] = asyncio.Queue()
        self._watches.append((kind, namespace, news))
        yield Event("BOOKMARK", {"metadata": {"resourceVersion": version}})
        while (event := await news.get()) is not None:
            yield event
        raise ClusterUnavailable("the watch was cut")

    async def aclose(self) -> None:
        self.break_watches()

    def _ask(self, verb: str, kind: Kind, namespace: str) -> None:
        self.asked.append(f"{verb} {kind.plural} {namespace}")
        if self.down:
            raise ClusterUnavailable("the cluster's API server does not answer")
        if namespace in self.denied:
            raise Denied("The platform may not do that there.", reason="FORBIDDEN", next_step="", answer="")

    def _held(self, kind: Kind, name: str, namespace: str) -> Json:
        try:
            return self.objects[kind, namespace, name]
        except KeyError as error:
            raise ObjectMissing(f"there is no {name}") from error

    def _tell(self, change: Any, thing: Json) -> None:
        self._changed_at = next(self._versions)
        if self.silent:
            return
        for kind, namespace, news in self._watches:
            if kind is kinds.of(thing) and namespace in ("", kinds.place(thing)[0]):
                news.put_nowait(Event(change, copy.deepcopy(thing)))


def node(
    name: str,
    *,
    ready: str = "True",
    cpu: str = "4",
    memory: str = "8Gi",
    labels: Mapping[str, str] | None = None,
    **spec: Any,
) -> Json:
    """Return a node."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": spec,
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "allocatable": {"cpu": cpu, "memory": memory, "nvidia.com/gpu": "1"},
        },
    }


def _merged(held: Any, change: Any) -> Any:
    if not isinstance(held, Mapping) or not isinstance(change, Mapping):
        return copy.deepcopy(change)
    merged = {key: value for key, value in held.items() if change.get(key, 0) is not None}
    return merged | {key: _merged(held.get(key), value) for key, value in change.items() if value is not None}


def _fields(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)
