from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.spawning.hub_site import Site


@pytest.fixture(scope="session")
def whole_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One installation for all tests of this room; each uses server names of its own."""
    served = Site(tmp_path_factory.mktemp("site"))
    try:
        served.start_proxy()
        served.start_hub()
        for name in served.passwords:
            served.signed_in(name)
        yield served
    finally:
        served.close()


@pytest.fixture
def site(whole_site: Site) -> Site:
    """The installation, with a hub whatever an earlier test did."""
    whole_site.ensure_hub()
    return whole_site


@pytest.fixture(scope="session")
def first(whole_site: Site) -> list[dict[str, Any]]:
    """Ada's server `first`, started once; returns the events that its start showed."""
    whole_site.api.before["first"] = [
        (202, {"operation": "op-1", "progress": done, "message": f"Layer {done} of 50"}) for done in (25, 25, 50)
    ]
    whole_site.hub("POST", "users/ada/servers/first", json={"tenant": "research"}).raise_for_status()
    return list(whole_site.progress("first"))
