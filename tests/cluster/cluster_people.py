"""Two people of two tenants at work in a release, and what they may rely on."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from tests.cluster import kubectl, registry_door, release
from tests.cluster.registry_door import RegistryDoor
from tests.cluster.release import Release
from tests.cluster.site import HOME, UID, ClusterSite
from tests.faults.workload import AT_REST, AWAKE, BROKEN, Life
from tests.support import wheels
from tests.support.platform import Platform

Json = dict[str, Any]
MIB = 1024**2
AT_ONCE = 2
SIZE = {"cpu_milli": 500, "memory_bytes": 768 * MIB}
TENANTS = {"ada": "research", "ben": "operations"}
SEED = {
    "tenants": [{"name": "research", "title": "Research"}, {"name": "operations", "title": "Operations"}],
    "users": [
        {"name": "ada", "tenants": {"research": "member"}},
        {"name": "ben", "tenants": {"operations": "member"}},
        {"name": "root", "admin": True, "tenants": {"research": "admin", "operations": "admin"}},
    ],
    "profiles": [{"name": "small", "title": "Small", "default": True, "kinds": ["command"], **SIZE}],
}
LIMITS = {"claim_s": 5, "import_stage_s": 10}


class Town(Platform):
    """A release, whose registry is behind a door, as tests of a platform on one machine see theirs."""

    def __init__(self, site: ClusterSite, door: RegistryDoor, of: Release) -> None:
        super().__init__(Path(), 0, "/", passwords=site.passwords)
        self.site, self.door, self.release = site, door, of
        self._homes: dict[str, Path] = {}
        self._database: Path | None = None

    @property
    def url(self) -> str:
        """The public address."""
        return self.site.url

    def rows(self, query: str, *values: Any) -> list[Json]:
        """Return rows of the database, read beside the platform."""
        if self._database is None:
            volume = kubectl.volume(self.site.namespace, f"{self.site.fullname}-server")
            self._database = volume / "torpor.sqlite"
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=15)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]

    def namespaces(self) -> list[str]:
        """Return the namespaces of both tenants."""
        return [f"{self.site.prefix}{tenant}" for tenant in TENANTS.values()]

    def pod(self, user: str, workspace: str) -> Json:
        """Return the pod of a user's workspace."""
        return kubectl.get("pod", workspace, "-n", f"{self.site.prefix}{TENANTS[user]}")

    def programs(self, component: str) -> list[Json]:
        """Return the pods of one of the platform's programs."""
        namespace = self.release.agents if component == "agent" else self.release.namespace
        chosen = f"app.kubernetes.io/instance={self.release.name},app.kubernetes.io/component={component}"
        return kubectl.items("pods", "-n", namespace, "-l", chosen)

    def put_wheel(self, user: str, name: str, value: int) -> str:
        """Put a wheel into a user's home; return its path as notebooks see it."""
        home = self.home(user)
        wheel = wheels.make(home, name, "1.0", value)
        os.chown(wheel, UID, UID)
        return f"{HOME}/{wheel.name}"

    def home(self, user: str) -> Path:
        """Return the folder of this machine that is the user's home."""
        if user not in self._homes:
            key = self.rows("SELECT id FROM users WHERE name = ?", user)[0]["id"]
            self._homes[user] = kubectl.volume(f"{self.site.prefix}{TENANTS[user]}", f"home-{key}")
        return self._homes[user]

    def dataset(self, tenant: str) -> str:
        """Return the id of a small dataset in a tenant."""
        folder, root = self.site.data(tenant)
        duckdb.sql(f"COPY (SELECT range AS number FROM range(2000)) TO '{folder / 'part.parquet'}' (FORMAT parquet)")
        os.chown(folder / "part.parquet", UID, UID)
        client = self.client("root")
        source = {"name": tenant, "tenant": tenant, "kind": "files", "spec": {"root": root}}
        assert client.post("/sources", json=source).status_code == 201
        made = client.post("/datasets", json={"name": tenant, "tenant": tenant, "source": tenant, "path": "."})
        assert made.status_code == 201, made.text
        return str(made.json()["id"])


@contextmanager
def built(of: Release, **more: Any) -> Iterator[Town]:
    """Give the release with two tenants, and its registry behind a door."""
    room = {"resources": {"requests": {"cpu": "10m"}}, "nodeSelector": {"kubernetes.io/hostname": release.NODE}}
    registry = os.environ[release.REGISTRY]
    with registry_door.opened(registry) as door:
        images = release.values(registry, release.images(registry), "/")["images"]
        for name in ("workspace", "workspaceSpark"):
            images[name] = images[name].replace(registry, door.address)
        values: Json = {
            "registry": {"host": door.address, "insecure": True},
            "images": images,
            "seed": SEED,
            "homes": {"accessMode": "ReadWriteMany", "sizeBytes": 1024 * MIB},
            "data": {"accessMode": "ReadWriteMany", "flights": False},
            **dict.fromkeys(("server", "hub", "proxy", "importer"), room),
            **more,
        }
        with release.installed(release=of, **values) as site:
            yield Town(site, door, of)


@dataclass
class Resident(Life):
    """One user with one workspace. ``when`` tells when each package was known to be installed."""

    when: dict[str, float] = field(default_factory=dict)

    __hash__ = Life.__hash__

    @property
    def town(self) -> Town:
        """Where they live."""
        assert isinstance(self.person.site, Town)
        return self.person.site

    def _choose(self) -> Callable[[], None]:
        try:
            phase = self.person.status(self.workspace)["phase"]
        except BROKEN:
            return self.wait
        busy = self._busy()
        if phase in AWAKE:
            choices = [self.install, self.sleep, self.sleep_and_cancel, self.submit, self.submit_long, self.data]
            return self.draw.choices(choices, [5, 4, 1, 0 if busy else 2, 0 if busy else 2, 1])[0]
        if phase in AT_REST:
            return self.draw.choices([self.wake, self.submit, self.data], [6, 0 if busy else 1, 1])[0]
        return self.draw.choices([self.wait, self.data], [6, 1])[0]

    def install(self) -> None:
        """Install a package of one's own; it counts once pip has confirmed it."""
        name, value = f"p{uuid.UUID(int=self.draw.getrandbits(128)).hex[:10]}", self.draw.randrange(10**6)
        wheel = self.town.put_wheel(self.person.name, name, value)
        with self.person.kernel(self.workspace) as kernel:
            code = f"%pip install -q --no-index --no-deps {wheel}\nimport {name}; print('have', {name}.VALUE)"
            assert f"have {value}" in kernel.run(code, within_s=40)
        self.installed[name], self.when[name] = value, time.time()

    def present(self) -> dict[str, int]:
        """Return which of the packages the running workspace has."""
        code = f"""
import importlib.util as found, importlib, json
names = [name for name in {list(self.installed)} if found.find_spec(name)]
print(json.dumps({{name: importlib.import_module(name).VALUE for name in names}}))
"""
        with self.person.kernel(self.workspace) as kernel:
            return dict(json.loads(kernel.run(code)))

    def stop(self) -> None:
        """Begin nothing more."""
        self._over.set()

    def finish(self) -> None:
        """Stop acting, and wait for the last action; one who never began has none."""
        self.stop()
        if self.is_alive():
            super().finish()

    def saved_in(self, checkpoint: str | None) -> set[str]:
        """Return the packages that were surely there when a checkpoint was begun."""
        if not checkpoint:
            return set()
        rows = self.town.rows(
            "SELECT created_at FROM operations WHERE checkpoint_id = ? AND kind IN ('sleep', 'checkpoint')", checkpoint
        )
        begun = min((seconds(row["created_at"]) for row in rows), default=0.0)
        return {name for name, at in self.when.items() if at < begun}

    def _busy(self) -> bool:
        query = (
            "SELECT COUNT(*) AS n FROM jobs j JOIN users u ON u.id = j.user_id WHERE u.name = ? AND j.ended_at IS NULL"
        )
        return int(self.town.rows(query, self.person.name)[0]["n"]) >= AT_ONCE


def seconds(stored: str) -> float:
    """Return a time of the database, in UTC, as seconds."""
    return datetime.fromisoformat(stored).replace(tzinfo=UTC).timestamp()
