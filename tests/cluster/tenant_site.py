"""The tenants' controller on the test cluster, with the rights of the chart's server account and no more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tests.cluster.test_rights_and_refusals import _role_objects, with_token
from tests.support.installation import seeded, settings_in
from torpor_hub.cluster.access import Access
from torpor_hub.cluster.client import Cluster
from torpor_hub.cluster.shape import shape_of
from torpor_hub.controllers.base import Leadership, Waker, loop
from torpor_hub.controllers.tenants import TenantController
from torpor_hub.podspecs import names, rights
from torpor_hub.stores.base import Store, take_lease
from torpor_hub.stores.changes import ChangeFeed
from torpor_hub.stores.tables import Change, Membership, Tenant, User

Json = dict[str, Any]
WRITES = ("POST", "PATCH", "PUT", "DELETE")
PATIENCE_S = 50.0


def kubectl(*words: str, content: Any = None) -> str:
    """Run kubectl as the cluster's administrator and return what it says."""
    given = json.dumps(content) if content is not None else None
    done = subprocess.run(["kubectl", *words], input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"kubectl {' '.join(words)}: {done.stderr}")
    return done.stdout


def until(condition: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
    """Return what ``condition`` gives once it gives something."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.1)
    return found


def remove(kind: str, name: str, namespace: str) -> None:
    """Remove an object and wait until it is gone, whether or not the controller has made it anew by then.

    ``kubectl delete`` waits for the name to be free: where the controller is faster than its first look, it waits
    for ever.
    """
    where = (kind, name, "-n", namespace)
    gone = kubectl("get", *where, "-o", "jsonpath={.metadata.uid}")
    kubectl("delete", *where, "--wait=false")
    same = (*where, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}")
    until(lambda: kubectl("get", *same) != gone, f"{kind} {name} is gone")


class CountingCluster(Cluster):
    """Counts what is asked of the API server, by method."""

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self.asked: dict[str, int] = {}

    def _request(self, method: str, path: str, **parts: Any) -> Any:
        self.asked[method] = self.asked.get(method, 0) + 1
        return super()._request(method, path, **parts)

    @property
    def writes(self) -> int:
        return sum(self.asked.get(method, 0) for method in WRITES)


class TenantSite:
    """Records of two tenants, and the controller that keeps them, running until it is closed."""

    def __init__(self, folder: Path, store: Store, reach: Access, **values: Any) -> None:
        self.prefix = f"hp-{secrets.token_hex(3)}-"
        self.store, self.reach = store, reach
        cluster = {
            "namespace": f"{self.prefix}platform",
            "namespace_prefix": self.prefix,
            "fullname": self.prefix + "t",
        }
        values = {"registry": {"host": "registry.example:5000"}} | values
        self.settings = settings_in(folder, **values | {"cluster": cluster | values.get("cluster", {})})
        seeded(store, self.settings)
        secret = self.settings.state_dir / "secrets" / "registry-pull"
        secret.parent.mkdir(parents=True)
        secret.write_text("puller:secret")
        self.shape = shape_of(self.settings)
        self.roles = [thing for role in rights.roles(self.shape).values() for thing in _role_objects(role, self.shape)]
        self._make_platform()
        self.cluster: CountingCluster
        self._stop: Callable[[], None] = lambda: None

    def _make_platform(self) -> None:
        kubectl("create", "namespace", self.shape.platform_namespace)
        for account in (self.shape.hub_account, self.shape.server_account, self.shape.api_account):
            kubectl("-n", self.shape.platform_namespace, "create", "serviceaccount", account)
        kubectl("apply", "-f", "-", content={"apiVersion": "v1", "kind": "List", "items": self.roles})

    def sign_in(self, account: str) -> Access:
        """Return the way to the cluster as one of the platform's accounts."""
        token = kubectl("-n", self.shape.platform_namespace, "create", "token", account).strip()
        return with_token(self.reach, token)

    async def work(self, lead: Leadership, feed: ChangeFeed) -> None:
        """Run the loops until they are cancelled."""
        controller = TenantController(self.store, self.settings, self.cluster, self.shape, lead)
        try:
            await loop("tenants", controller.turn, Waker(feed, ("tenant",)), lead)
        finally:
            await controller.aclose()

    def start(self) -> None:
        """Run the loops as the server does, in a thread of their own."""
        access = self.sign_in(self.shape.server_account)
        running, ready = asyncio.new_event_loop(), threading.Event()
        tasks: list[asyncio.Task[None]] = []

        async def run() -> None:
            self.cluster = CountingCluster(access)
            lead = Leadership(self.store, lifetime_s=600)
            lead.epoch = await asyncio.to_thread(take_lease, self.store, "controller", lead.holder, 600)
            feed = ChangeFeed(self.store)
            await asyncio.to_thread(feed.start)
            tasks.append(asyncio.create_task(self.work(lead, feed)))
            ready.set()
            with contextlib.suppress(asyncio.CancelledError):
                await tasks[0]
            await asyncio.to_thread(feed.stop)
            await self.cluster.aclose()
            await asyncio.to_thread(lead.drop)

        thread = threading.Thread(target=lambda: running.run_until_complete(run()))
        thread.start()
        ready.wait()

        def stop() -> None:
            running.call_soon_threadsafe(tasks[0].cancel)
            thread.join()
            self._stop = lambda: None

        self._stop = stop

    def stop(self) -> None:
        """End the controller."""
        self._stop()

    def close(self) -> None:
        """Leave nothing behind."""
        self.stop()
        made = json.loads(kubectl("get", "namespaces", "-o", "json"))["items"]
        for thing in made:
            if thing["metadata"]["name"].startswith(self.prefix):
                kubectl("delete", "namespace", thing["metadata"]["name"], "--wait=false")
        kubectl("delete", "-f", "-", content={"apiVersion": "v1", "kind": "List", "items": self.roles})
        kubectl(
            "delete", "persistentvolumes", "-l", f"torpor/tenant in ({','.join(self.tenant_ids())})", "--wait=false"
        )

    def namespace(self, tenant: str = "research") -> str:
        return names.namespace(self.prefix, tenant)

    def tenant_ids(self) -> list[str]:
        with self.store.read() as tx:
            return list(tx.session.scalars(select(Tenant.id)))

    def tenant(self, name: str = "research") -> Tenant:
        with self.store.read() as tx:
            return tx.session.scalars(select(Tenant).where(Tenant.name == name)).one()

    def member_ids(self, tenant: str = "research") -> set[str]:
        with self.store.read() as tx:
            wanted = select(Membership.user_id).where(
                Membership.tenant_id == self.tenant(tenant).id, Membership.role != "viewer"
            )
            return set(tx.session.scalars(wanted))

    def user_id(self, name: str) -> str:
        with self.store.read() as tx:
            return tx.session.scalars(select(User.id).where(User.name == name)).one()

    def changes(self, event: str, tenant: str = "research") -> list[str]:
        """Return the objects that were recorded under an event, in order."""
        with self.store.read() as tx:
            query = select(Change).where(Change.kind == "tenant", Change.event == event).order_by(Change.seq)
            rows = [row for row in tx.session.scalars(query) if row.object_id == self.tenant(tenant).id]
        return [thing for row in rows for thing in row.payload.get("objects", [row.payload.get("message", "")])]

    def get(self, kind: str, name: str, tenant: str = "research") -> Json | None:
        """Return an object as the cluster has it."""
        found = kubectl("-n", self.namespace(tenant), "get", kind, name, "--ignore-not-found", "-o", "json")
        return dict(json.loads(found)) if found else None

    def is_whole(self, tenant: str = "research") -> bool:
        """Return whether the namespace says that everything was made."""
        found = self.get("namespace", self.namespace(tenant), tenant)
        return found is not None and "torpor/complete" in found["metadata"].get("annotations", {})
