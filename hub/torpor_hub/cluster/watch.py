"""A cache of one kind in many namespaces, kept by list and watch, that always says how much of it is known."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from torpor_hub.cluster import kinds
from torpor_hub.cluster.client import WATCH_S, WATCH_SLACK_S, Cluster, Event
from torpor_hub.cluster.kinds import Json, Kind
from torpor_hub.errors import ClusterError, VersionExpired

log = logging.getLogger(__name__)
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 10.0


@dataclass(frozen=True)
class Snapshot:
    """What is known at one moment.

    ``objects`` are by namespace and name. ``as_of`` (on the monotonic clock) is when the server last proved for every namespace
    that nothing is missing. ``known`` and ``unknown`` are the namespaces that are followed: of an unknown one, which was never
    listed or whose watch is broken, ``objects`` holds what was last seen. That something is absent means nothing there, and
    a decision that cannot be undone asks a live list in any case.
    """

    objects: Mapping[tuple[str, str], Json]
    as_of: float
    known: frozenset[str]
    unknown: frozenset[str]

    @property
    def current(self) -> bool:
        """Whether every namespace is known."""
        return not self.unknown

    def knows(self, namespace: str) -> bool:
        """Return whether an object of that namespace which is not here does not exist."""
        return namespace in self.known or "" in self.known


@dataclass
class _Followed:
    """One namespace: its objects, and the version and the time up to which they are complete."""

    namespace: str
    objects: dict[tuple[str, str], Json] = field(default_factory=dict)
    version: str = ""
    as_of: float = 0.0
    known: bool = False
    task: asyncio.Task[None] | None = None


class Watch:
    """Follows one kind over a selector in namespaces that come and go; use it as a context or call ``aclose``.

    A watch goes on from the last version it saw, without a new list; only when the server has forgotten that version, is
    everything listed again. What fails is logged and repeated, at most ``LONGEST_WAIT_S`` later, and until then its namespace
    is unknown while its last objects stay to be seen.
    """

    def __init__(
        self, cluster: Cluster, kind: Kind, *, labels: str = "", fields: str = "", within_s: float = WATCH_S
    ) -> None:
        self._cluster = cluster
        self._kind = kind
        self._labels = labels
        self._fields = fields
        self._within_s = within_s
        self._followed: dict[str, _Followed] = {}
        self._changed = asyncio.Event()

    @property
    def changed(self) -> asyncio.Event:
        """An event that is set at the next change, also of what is known. Take it before ``snapshot`` and wait for it after."""
        return self._changed

    def snapshot(self) -> Snapshot:
        """Return what is known now. The objects are shared: do not change them."""
        stale = time.monotonic() - self._within_s - 2 * WATCH_SLACK_S
        followed = self._followed.values()
        known = frozenset(each.namespace for each in followed if each.known and each.as_of >= stale)
        return Snapshot(
            objects={place: thing for each in followed for place, thing in each.objects.items()},
            as_of=min((each.as_of for each in followed), default=time.monotonic()),
            known=known,
            unknown=frozenset(self._followed) - known,
        )

    def follow(self, namespaces: Iterable[str]) -> None:
        """Follow exactly these namespaces from now on; the empty name stands for all at once."""
        wanted = set(namespaces)
        for namespace in self._followed.keys() - wanted:
            self._leave(self._followed.pop(namespace))
        for namespace in wanted - self._followed.keys():
            each = self._followed[namespace] = _Followed(namespace)
            self._start(each)

    def add(self, namespace: str) -> None:
        """Follow one namespace more."""
        self.follow({*self._followed, namespace})

    async def known(self, namespace: str, *, within_s: float) -> bool:
        """Return whether the namespace is known, once it is or ``within_s`` has passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self.snapshot().knows(namespace):
                    await self._changed.wait()
        return self.snapshot().knows(namespace)

    async def aclose(self) -> None:
        """Stop following."""
        tasks = [each.task for each in self._followed.values() if each.task is not None]
        self.follow(())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _start(self, each: _Followed) -> None:
        each.task = asyncio.create_task(self._keep(each), name=f"watch {self._kind.plural} {each.namespace}")
        each.task.add_done_callback(lambda task: self._ended(each, task))

    def _leave(self, each: _Followed) -> None:
        if each.task is not None:
            each.task.cancel()
        self._tell()

    def _ended(self, each: _Followed, task: asyncio.Task[None]) -> None:
        """Start a follower again that died of something which nobody expected."""
        if task.cancelled() or self._followed.get(each.namespace) is not each:
            return
        log.error("%s: the follower died; it starts again.", task.get_name(), exc_info=task.exception())
        each.version = ""
        self._lose(each)
        task.get_loop().call_later(LONGEST_WAIT_S, self._again, each)

    def _again(self, each: _Followed) -> None:
        if self._followed.get(each.namespace) is each:
            self._start(each)

    async def _keep(self, each: _Followed) -> None:
        """Follow for ever. What ends sooner than it should is repeated with growing pauses, whatever its reason."""
        wait_s = FIRST_WAIT_S
        while True:
            begun = time.monotonic()
            try:
                await self._pass(each)
            except VersionExpired:
                each.version = ""
            except ClusterError as error:
                self._lose(each)
                log.warning("%s in '%s' unknown: %s", self._kind.plural, each.namespace, error)
            if time.monotonic() - begun >= min(LONGEST_WAIT_S, self._within_s / 2):
                wait_s = FIRST_WAIT_S
                continue
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 # no secret
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    async def _pass(self, each: _Followed) -> None:
        """List where there is no version to go on from, then take up changes until the watch ends."""
        if not each.version:
            await self._list(each)
        watch = self._cluster.watch(
            self._kind,
            each.namespace,
            version=each.version,
            labels=self._labels,
            fields=self._fields,
            # Watches that began together do not end together.
            within_s=self._within_s * random.uniform(0.7, 1.0),  # noqa: S311 # no secret
        )
        async with aclosing(watch) as events:
            async for event in events:
                self._take(each, event)
        self._prove(each)

    async def _list(self, each: _Followed) -> None:
        asked = time.monotonic()
        listing = await self._cluster.list(self._kind, each.namespace, labels=self._labels, fields=self._fields)
        each.objects = {kinds.place(item): item for item in listing.items}
        each.version, each.as_of, each.known = listing.version, asked, True
        self._tell()

    def _take(self, each: _Followed, event: Event) -> None:
        each.version = event.version
        if event.change == "DELETED":
            each.objects.pop(kinds.place(event.thing), None)
        elif event.change != "BOOKMARK":
            each.objects[kinds.place(event.thing)] = event.thing
        self._prove(each)
        if event.change != "BOOKMARK":
            self._tell()

    def _prove(self, each: _Followed) -> None:
        each.as_of = time.monotonic()
        if not each.known:
            each.known = True
            self._tell()

    def _lose(self, each: _Followed) -> None:
        if each.known:
            each.known = False
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
