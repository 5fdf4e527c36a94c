"""What tests on a real cluster share. Without ``KUBECONFIG`` they are skipped, each by its name."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import scene as scenes
from tests.cluster.release import REGISTRY
from tests.cluster.scene import Scene
from torpor_hub.cluster import access, kinds
from torpor_hub.cluster.access import Access
from torpor_hub.cluster.client import Cluster
from torpor_hub.stores.base import Store


@pytest.fixture(scope="session")
def reach() -> Access:
    """The cluster that ``KUBECONFIG`` names, as its administrator."""
    if not os.environ.get(access.CONFIG):
        pytest.skip(f"needs the test cluster: {access.CONFIG} is not set")
    return access.find()


@pytest.fixture
def store(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Store]:
    """A migrated store: what a cluster does is not asked once for each database."""
    file = tmp_path / "torpor.sqlite"
    file.write_bytes(migrated_sqlite.read_bytes())
    made = Store(f"sqlite:///{file}")
    yield made
    made.close()


@pytest.fixture
def prefix(reach: Access) -> Iterator[str]:
    """A prefix that no other test's namespaces have; every namespace with it is removed afterwards."""
    made = f"hc-{secrets.token_hex(3)}-"
    yield made

    async def remove() -> None:
        async with Cluster(reach) as cluster:
            for thing in (await cluster.list(kinds.NAMESPACE)).items:
                if thing["metadata"]["name"].startswith(made):
                    await cluster.delete(kinds.NAMESPACE, thing["metadata"]["name"])

    asyncio.run(remove())


@pytest.fixture(scope="module")
def release_at_work(
    reach: Access, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """The release that the test's file names ``RELEASE``, with people who come to work in it."""
    if not os.environ.get(REGISTRY):
        pytest.skip(f"needs the test cluster: {REGISTRY} is not set")
    release = request.module.RELEASE
    with scenes.played(release, tmp_path_factory.mktemp(release.name)) as made:
        yield made


@pytest.fixture
def scene(release_at_work: Scene) -> Iterator[Scene]:
    """The same, with its registry open again afterwards."""
    yield release_at_work
    release_at_work.town.door.be("open")
