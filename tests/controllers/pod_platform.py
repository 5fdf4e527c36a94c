"""The controller's loop for workspaces over pods, with a stand-in for the hub that makes what is granted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.support.installation import seeded, settings_in
from torpor_hub.cluster.client import Cluster
from torpor_hub.cluster.shape import shape_of
from torpor_hub.controllers.base import Leadership
from torpor_hub.controllers.workspaces import WorkspaceController
from torpor_hub.domain.workspaces import WorkspaceRun
from torpor_hub.errors import ObjectExists, Unavailable, UserError
from torpor_hub.oci.store import ImageStore
from torpor_hub.places.kubernetes import KubernetesPlace
from torpor_hub.podspecs.workspace import ENTRY, workspace_pod
from torpor_hub.services import ledger, operations, people, starts, tenancy, views, workspaces
from torpor_hub.settings import Settings
from torpor_hub.stores.base import Store, UnitOfWork, take_lease
from torpor_hub.stores.tables import Workspace

T = TypeVar("T")
Json = dict[str, Any]


class StandInHub:
    """Makes the pod of a granted start, as the hub does. ``change`` spoils what is made; ``told`` are the refusals.

    ``routed`` is whether the proxy leads to what runs; None for a hub that is away.
    """

    command: tuple[str, ...] = ENTRY
    args: tuple[str, ...] = ()

    def __init__(self, store: Store, settings: Settings, cluster: Cluster) -> None:
        self._store, self._settings, self._cluster = store, settings, cluster
        self.change: Callable[[Json], None] = lambda _: None
        self.told: list[str] = []
        self.routed: bool | None = True

    async def start(self, user: str, server: str) -> None:
        try:
            run = await asyncio.to_thread(self._ask, server)
        except UserError as error:
            self.told.append(str(error))
            return
        if run is None:
            return
        pod = workspace_pod(
            run, shape_of(self._settings), args=self.args, environment={}, base_url="/", command=self.command
        )
        self.change(pod)
        try:
            await self._cluster.create(pod)
        except ObjectExists as error:
            raise Unavailable("It runs already.") from error

    async def leads_to(self, user: str, server: str) -> bool:
        if self.routed is None:
            raise Unavailable("The hub does not answer.")
        return self.routed

    def _ask(self, server: str) -> WorkspaceRun | None:
        with self._store.begin("hub") as tx:
            row = tx.session.query(Workspace).filter_by(name=server).one()
            answer = starts.answer(tx, self._settings, row)
        return WorkspaceRun.from_json(answer.run) if isinstance(answer, starts.Granted) else None


class PodPlatform:
    """Records, place, controller and hub. Everything asynchronous runs in the caller's loop."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        cluster: Cluster,
        images: ImageStore,
        *,
        hub: Cluster | None = None,
        lead: Leadership | None = None,
    ) -> None:
        self.store, self.settings = store, settings
        self.lead = lead or Leadership(store, lifetime_s=600)
        if lead is None:
            self.lead.epoch = take_lease(store, "controller", self.lead.holder, 600)
        self.place = KubernetesPlace(cluster, shape_of(settings), images, self.tenants)
        self.hub = StandInHub(store, settings, hub or cluster)
        stand_in: Any = self.hub
        self.controller = WorkspaceController(store, settings, self.place, images, stand_in, self.lead)

    async def aclose(self) -> None:
        await self.place.aclose()

    def tenants(self) -> list[str]:
        with self.store.read() as tx:
            return tenancy.names(tx)

    def do(self, act: Callable[[UnitOfWork], T], who: str = "ada") -> T:
        with self.store.begin(who) as tx:
            return act(tx)

    def create(self, name: str = "first", profile: str | None = None) -> str:
        def make(tx: UnitOfWork) -> str:
            actor = people.person(tx, "ada", can_write=True)
            return workspaces.create(tx, actor, name=name, tenant="research", profile=profile).id

        return self.do(make)

    def wish(self, key: str, **spec: Any) -> None:
        self.do(lambda tx: workspaces.wish(tx, self.settings, operations.workspace_of(tx, key), spec))

    def show(self, key: str) -> Json:
        shown = self.do(lambda tx: views.workspace(tx, self.settings, operations.workspace_of(tx, key)))
        return dict(shown["status"])

    def row(self, key: str) -> Workspace:
        return self.do(lambda tx: operations.workspace_of(tx, key))

    def held(self) -> int:
        return self.do(lambda tx: ledger.tenant_room(tx, people.tenant_named(tx, "research")).used.cpu_milli)

    async def turn(self) -> None:
        """Take one turn, and wait until its steps are taken."""
        await self.controller.turn()
        await asyncio.gather(*self.controller._busy.values())

    async def until(self, condition: Callable[[], bool], what: str, within_s: float = 20.0) -> None:
        """Take turns until something is so."""
        async with asyncio.timeout(within_s):
            while not condition():
                await self.turn()
                await asyncio.sleep(0.02)
        assert condition(), what

    async def phase(self, key: str, phase: str) -> Json:
        """Take turns until the workspace is in a phase, and return its status."""
        try:
            await self.until(lambda: self.show(key)["phase"] == phase, phase)
        except TimeoutError as error:
            raise AssertionError(f"{phase} was waited for in vain: {self.show(key)}, {self.hub.told}") from error
        return self.show(key)


def fresh_settings(folder: Path, store: Store, **values: Any) -> Settings:
    """Return the settings of a cluster, with the first records made."""
    paths = {"workspace": "/opt/workspace", "home": "/home/user", "data": "/data"}
    settings = settings_in(folder, mode="kubernetes", paths=paths, **values)
    seeded(store, settings)
    return settings
