"""A real hub whose servers are pods: how they start, are found again, and fail."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from tests.cluster.spawner_site import KubeSite
from torpor_hub.cluster.access import Access

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def whole_site(reach: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeSite]:
    image = os.environ.get("TORPOR_TEST_WORKSPACE_IMAGE", "")
    if not image:
        pytest.skip("needs the image of a workspace: TORPOR_TEST_WORKSPACE_IMAGE is not set")
    site = KubeSite(tmp_path_factory.mktemp("site"), f"hs-{secrets.token_hex(3)}-", image, reach)
    try:
        site.start_proxy()
        site.start_hub()
        for name in site.passwords:
            site.signed_in(name)
        yield site
    finally:
        site.close()


@pytest.fixture
def site(whole_site: KubeSite) -> KubeSite:
    """The installation, with a hub and a cluster that answers whatever an earlier test did."""
    whole_site.door.be("open")
    whole_site.ensure_hub()
    return whole_site


def works(site: KubeSite, name: str) -> bool:
    """Whether its owner gets in and its token serves it."""
    page = site.visit(site.signed_in("ada"), f"user/ada/{name}/lab")
    return page.status_code == 200 and site.hub("GET", "user", site.server_token(name)).status_code == 200


def test_a_start_makes_one_pod_that_lets_its_owner_in(site: KubeSite) -> None:
    site.start_pod("first")
    assert works(site, "first")
