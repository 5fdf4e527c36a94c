"""One start of a server as its pod's raw status and the hub's progress told it, and when."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx

from tests.spawning.hub_site import within

if TYPE_CHECKING:
    from tests.cluster.spawner_site import KubeSite

Json = dict[str, Any]
AT_WORK = ("ContainerCreating", "PodInitializing")
LATE_S = 5.0


def waits(pod: Json) -> bool:
    """Whether the kubelet says that something is in the way of a container."""
    return any(state.get("waiting", {}).get("reason", AT_WORK[0]) not in AT_WORK for state in _states(pod))


def has_no_node(pod: Json) -> bool:
    """Whether the scheduler says that no node takes it."""
    conditions = pod["status"].get("conditions") or ()
    return any((each["type"], each["status"]) == ("PodScheduled", "False") for each in conditions)


def has_ended(pod: Json) -> bool:
    """Whether the kubelet says that a container has ended."""
    return any("terminated" in state for state in _states(pod))


def _states(pod: Json) -> list[Json]:
    return [each.get("state") or {} for each in pod["status"].get("containerStatuses") or ()]


class Story:
    """One start: ``events`` are those of its progress with their times.

    ``signal`` is when the API server first sent a pod for which ``is_signal`` holds, seen by a watch that has nothing of the
    platform in it; 0 where it never did.
    """

    def __init__(
        self,
        site: KubeSite,
        server: str,
        is_signal: Callable[[Json], bool] | None = None,
        at_signal: Callable[[], None] = lambda: None,
    ) -> None:
        self.site, self.server, self._is_signal, self._at_signal = site, server, is_signal, at_signal
        self.events: list[tuple[float, Json]] = []
        self.signal = 0.0
        self._over, self._watching = threading.Event(), threading.Event()
        watcher = threading.Thread(target=lambda: asyncio.run(self._wait_for_signal()))
        asker = threading.Thread(target=self._ask)
        if is_signal is not None:
            watcher.start()
            assert self._watching.wait(LATE_S), "the cluster lets this test watch"
        self.begun = time.time()
        asker.start()
        try:
            within(90, self._read, f"the start of {server} ends")
        finally:
            self._over.set()
            asker.join()
            if is_signal is not None:
                watcher.join()

    @property
    def last(self) -> str:
        return str(self.events[-1][1]["message"])

    def told_at(self, text: str) -> float:
        """Return when the progress first said so."""
        return next(at for at, event in self.events if text in event["message"])

    def told_after_s(self, text: str) -> float:
        """Return the seconds from the signal until the progress first said so."""
        assert self.signal, "the cluster has given no signal"
        return round(self.told_at(text) - self.signal, 2)

    def _ask(self) -> None:
        self.site.hub("POST", f"users/ada/servers/{self.server}")

    def _read(self) -> bool:
        """Read the progress of the start; a start that has not begun yet has none."""
        for event in self.site.progress(self.server):
            self.events.append((time.time(), event))
        return bool(self.events)

    async def _wait_for_signal(self) -> None:
        watch = asyncio.create_task(self._watch())
        await asyncio.to_thread(self._over.wait)
        await asyncio.wait({watch}, timeout=LATE_S)
        watch.cancel()

    async def _watch(self) -> None:
        assert self._is_signal is not None
        admin, server = self.site.admin, self.server
        url = f"{admin.server}/api/v1/namespaces/{self.site.namespace_of(server)}/pods"
        which = {"watch": "1", "labelSelector": f"torpor/workspace={self.site.workspace(server)}"}
        headers = {"Authorization": f"Bearer {admin.token()}"} if admin.token() else {}
        async with (
            httpx.AsyncClient(verify=admin.tls, headers=headers, timeout=None) as client,
            client.stream("GET", url, params=which) as answer,
        ):
            assert answer.status_code == httpx.codes.OK, answer.status_code
            self._watching.set()
            async for line in answer.aiter_lines():
                if self._is_signal(json.loads(line)["object"]):
                    self.signal = time.time()
                    await asyncio.to_thread(self._at_signal)
                    return
