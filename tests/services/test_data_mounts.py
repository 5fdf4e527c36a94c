"""Who finds the platform's own data as files in a workspace or a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.installation import seeded, settings_in
from torpor_hub.domain.workspaces import Mount
from torpor_hub.services import people, starts
from torpor_hub.stores.base import Store

SHARED: dict[str, Any] = {
    "paths": {"data": "/data"},
    "cluster": {"data_source": {"nfs": {"server": "files.example", "path": "/data"}}},
}


def mounts(store: Store, state: Path, who: str, tenant_name: str, **values: Any) -> tuple[Mount, ...]:
    settings = settings_in(state, **values)
    seeded(store, settings)
    with store.read() as tx:
        tenant, user = people.tenant_named(tx, tenant_name), people.user_named(tx, who)
        found = starts.data_mounts(tx, settings, tenant.id, user)
        return tuple(Mount(mount.claim.replace(tenant.id, "ID"), mount.path) for mount in found)


@pytest.mark.parametrize(("who", "tenant"), [("ada", "research"), ("root", "operations")])
def test_a_member_finds_the_data_where_its_datasets_say(store: Store, tmp_path: Path, who: str, tenant: str) -> None:
    assert mounts(store, tmp_path, who, tenant, **SHARED) == (Mount("data-ID", "/data"),)


@pytest.mark.parametrize(("who", "tenant"), [("ada", "operations"), ("ben", "research")])
def test_a_viewer_or_a_stranger_finds_none(store: Store, tmp_path: Path, who: str, tenant: str) -> None:
    assert mounts(store, tmp_path, who, tenant, **SHARED) == ()


def test_where_processes_run_nothing_is_mounted(store: Store, tmp_path: Path) -> None:
    assert mounts(store, tmp_path, "ada", "research") == ()
