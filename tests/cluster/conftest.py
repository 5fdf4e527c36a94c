"""What tests on a real cluster share. Without ``KUBECONFIG`` they are skipped, each by its name."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

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
