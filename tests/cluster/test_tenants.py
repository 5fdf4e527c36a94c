"""Tenants on a real cluster: made whole, kept so, and never taken from somebody else."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.tenant_site import TenantSite, kubectl, remove, until
from tests.support.promises import limit
from torpor_hub.cluster.access import Access
from torpor_hub.controllers import tenants
from torpor_hub.controllers.upkeep import IN_NAMESPACES
from torpor_hub.domain.workspaces import EnvironmentChoice
from torpor_hub.errors import Conflict
from torpor_hub.services import operations, starts, workspaces
from torpor_hub.services.people import person
from torpor_hub.stores.base import Store
from torpor_hub.stores.tables import Membership, Tenant

pytestmark = pytest.mark.cluster
Record = Callable[[str, Any], None]
REPAIRED_WITHIN_S = 10


@pytest.fixture
def site(tmp_path: Path, store: Store, reach: Access) -> Iterator[TenantSite]:
    made = TenantSite(tmp_path, store, reach)
    yield made
    made.close()


# What somebody does, by kind of object: to which, and a change as a merge patch; None removes it.
DRIFTS: dict[str, tuple[str, str, Any]] = {
    "the namespace's level is lowered": (
        "namespace",
        "",
        {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}},
    ),
    "the hub's rights are taken": ("rolebinding", "torpor-hub", None),
    "the hub's rights are given to another": (
        "rolebinding",
        "torpor-hub",
        {"subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]},
    ),
    "the controller's rights are taken": ("rolebinding", "torpor-controller", None),
    "a wall is removed": ("networkpolicy", "deny-all", None),
    "a wall is opened": ("networkpolicy", "deny-all", {"spec": {"ingress": [{}]}}),
    "a door is widened": ("networkpolicy", "allow-hub", {"spec": {"egress": [{}]}}),
    "the limits are raised": (
        "limitrange",
        "torpor",
        {"spec": {"limits": [{"type": "Container", "max": {"cpu": "64"}}]}},
    ),
    "the limits are removed": ("limitrange", "torpor", None),
    "the quota is raised": ("resourcequota", "torpor", {"spec": {"hard": {"requests.cpu": "64"}}}),
    "the quota is narrowed by more": ("resourcequota", "torpor", {"spec": {"hard": {"pods": "0"}}}),
    "the quota is removed": ("resourcequota", "torpor", None),
    "the account gets a token": ("serviceaccount", "torpor-user", {"automountServiceAccountToken": True}),
    "the account is removed": ("serviceaccount", "torpor-user", None),
    "evictions are allowed": ("poddisruptionbudget", "workspaces", {"spec": {"minAvailable": 0}}),
    "the budget is removed": ("poddisruptionbudget", "workspaces", None),
    "the pull secret is changed": (
        "secret",
        "torpor-pull",
        {"data": {".dockerconfigjson": base64.b64encode(b"{}").decode()}},
    ),
    "the pull secret is removed": ("secret", "torpor-pull", None),
}


def spoil(site: TenantSite, kind: str, name: str, change: Any) -> None:
    if change is None:
        remove(kind, name, site.namespace())
    else:
        kubectl("-n", site.namespace(), "patch", kind, name, "--type=merge", "-p", json.dumps(change))


def repaired(condition: Callable[[], Any], what: str) -> float:
    """Return after how many seconds ``condition`` says that drift is repaired; fail where that takes too long."""
    spoiled = time.monotonic()
    until(condition, f"repaired in time: {what}", limit(REPAIRED_WITHIN_S))
    return round(time.monotonic() - spoiled, 2)


def spec(thing: dict[str, Any] | None) -> dict[str, Any]:
    """Return what of an object is somebody's wish."""
    assert thing is not None
    labels = thing["metadata"].get("labels")
    return {"labels": labels, **{key: value for key, value in thing.items() if key not in ("metadata", "status")}}


def test_drift_of_every_kind_is_repaired_and_told_once_and_nothing_else_is_written(
    site: TenantSite, record_property: Record
) -> None:
    begun = time.monotonic()
    site.start()
    until(lambda: site.is_whole() and site.is_whole("operations"), "both tenants are whole")
    record_property("tenant_made_after_s", round(time.monotonic() - begun, 2))
    assert site.changes("repaired") == []
    until(lambda: site.changes("made"), "the making is recorded")
    homes = {f"home-{user_id}" for user_id in site.member_ids()}
    assert len(homes) == 2, "a viewer has no home, a member and an admin have"
    assert all(site.get("persistentvolumeclaim", home) for home in homes)

    before = (site.cluster.writes, site.cluster.asked["GET"])
    time.sleep(2 * tenants.LOOK_EVERY_S + 1)
    assert site.cluster.writes == before[0], "something was written where nothing differs"
    record_property("reads_in_11_s_of_rest", site.cluster.asked["GET"] - before[1])

    told = 0
    for drift, (kind, given, change) in DRIFTS.items():
        name = given or site.namespace()
        good = spec(site.get(kind, name))
        spoil(site, kind, name, change)
        after_s = repaired(lambda told=told: len(site.changes("repaired")) > told, f"{drift}, and recorded")
        record_property(f"{drift}: repaired_after_s", after_s)
        assert spec(site.get(kind, name)) == good, drift
        changes = site.changes("repaired")
        assert len(changes) == told + 1, f"{drift}: {changes[told:]}"
        assert changes[told].lower() == f"{kind} {name}", drift
        told += 1
    writes = site.cluster.writes
    time.sleep(tenants.LOOK_EVERY_S + 1)
    assert (site.cluster.writes, len(site.changes("repaired"))) == (writes, told)


def test_a_door_that_nobody_wished_for_is_closed_and_a_lost_home_is_made_anew(
    site: TenantSite, record_property: Record
) -> None:
    site.start()
    until(site.is_whole, "the tenant is whole")
    planted = dict(site.get("networkpolicy", "allow-api") or {})
    planted["metadata"] = {"name": "planted", "labels": planted["metadata"]["labels"]}
    kubectl("-n", site.namespace(), "create", "-f", "-", content=planted)
    after_s = repaired(
        lambda: site.get("networkpolicy", "planted") is None,
        "what carries the platform's labels and is not its own goes",
    )
    record_property("planted_policy_gone_after_s", after_s)
    # Nobody can put another binding in that place while the controller works: it would make its own first.
    site.stop()
    binding = dict(site.get("rolebinding", "torpor-hub") or {})
    kubectl("-n", site.namespace(), "delete", "rolebinding", "torpor-hub")
    stolen = {**binding, "roleRef": {**binding["roleRef"], "name": "view"}}
    stolen["metadata"] = {"name": "torpor-hub", "labels": binding["metadata"]["labels"]}
    kubectl("-n", site.namespace(), "create", "-f", "-", content=stolen)
    site.start()
    repaired(
        lambda: (site.get("rolebinding", "torpor-hub") or binding | {"roleRef": {}})["roleRef"] == binding["roleRef"],
        "rights that nobody may change are made anew",
    )
    home = f"home-{site.user_id('ada')}"
    remove("persistentvolumeclaim", home, site.namespace())
    after_s = repaired(
        lambda: f"PersistentVolumeClaim {home}" in site.changes("repaired"), "the home is made anew and told"
    )
    record_property("home_repaired_after_s", after_s)
    assert site.get("persistentvolumeclaim", home)


def test_wishes_are_followed_and_are_no_repairs_and_a_restart_writes_nothing(site: TenantSite) -> None:
    site.start()
    until(lambda: site.is_whole() and site.is_whole("operations"), "both tenants are whole")
    with site.store.begin("root") as tx:
        row = tx.session.get_one(Tenant, site.tenant().id)
        row.cpu_milli = 3000
        ben = site.user_id("ben")
        tx.session.add(Membership(tenant_id=row.id, user_id=ben, role="member", origin="admin"))
        tx.change("tenant", row.id, "quota", tenant_id=row.id)
    until(lambda: (site.get("resourcequota", "torpor") or {})["spec"]["hard"]["limits.cpu"] == "3", "the quota follows")
    until(lambda: site.get("persistentvolumeclaim", f"home-{ben}"), "the new member has a home")
    until(lambda: "ResourceQuota torpor" in site.changes("updated"), "it is recorded as what it is")
    assert site.changes("repaired") == []
    site.stop()
    site.start()
    until(lambda: site.cluster.asked.get("GET", 0) > 2 * len(IN_NAMESPACES), "everything was listed")
    time.sleep(tenants.LOOK_EVERY_S + 1)
    assert site.cluster.writes == 0, site.cluster.asked
    site.stop()
    spoil(site, "resourcequota", "torpor", None)
    with site.store.begin("root") as tx:
        tx.session.query(Membership).filter_by(user_id=ben).delete()
    site.start()
    repaired(
        lambda: site.changes("repaired") == ["ResourceQuota torpor"], "what was spoiled meanwhile is repaired and told"
    )
    assert site.get("persistentvolumeclaim", f"home-{ben}"), "a claim was deleted: nobody may ever do that"


def test_a_namespace_of_somebody_else_is_never_taken_over_and_the_tenant_says_so(site: TenantSite) -> None:
    kubectl("create", "namespace", site.namespace())
    kubectl("-n", site.namespace(), "create", "configmap", "theirs")
    before = spec(site.get("namespace", site.namespace()))
    site.start()
    until(lambda: site.is_whole("operations"), "the other tenant is made")
    until(lambda: site.tenant().problem, "the refusal is recorded")
    assert "exists and is not the platform's" in site.tenant().problem
    assert spec(site.get("namespace", site.namespace())) == before
    assert site.get("resourcequota", "torpor") is None
    assert len(site.changes("refused")) == 1
    with site.store.begin("ada") as tx:
        made = workspaces.create(tx, person(tx, "ada", can_write=True), name="a", tenant="research", profile=None).id
        with pytest.raises(Conflict, match="is not the platform's"):
            starts.begin(tx, site.settings, operations.workspace_of(tx, made), EnvironmentChoice.CURRENT)
    remove("namespace", site.namespace(), site.namespace())
    until(site.is_whole, "once it is gone, the tenant is made")
    assert site.tenant().problem == ""


def test_the_platforms_data_is_a_read_only_volume_in_every_tenant(
    tmp_path: Path, store: Store, reach: Access, record_property: Record
) -> None:
    source = {"hostPath": {"path": str(tmp_path), "type": ""}}
    site = TenantSite(tmp_path / "state", store, reach, cluster={"data_source": source})
    try:
        site.start()
        name = f"data-{site.tenant().id}"

        def bound() -> Any:
            found = site.get("persistentvolumeclaim", name)
            return found if found and found["status"].get("phase") == "Bound" else None

        found = until(bound, "the tenant's claim is bound")
        volume = json.loads(kubectl("get", "persistentvolume", found["spec"]["volumeName"], "-o", "json"))
        assert volume["spec"]["accessModes"] == ["ReadOnlyMany"]
        assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
        assert volume["spec"]["hostPath"] == source["hostPath"]
        other = until(
            lambda: site.get("persistentvolumeclaim", f"data-{site.tenant('operations').id}", "operations"), ""
        )
        assert other["spec"]["volumeName"] != volume["metadata"]["name"], "two tenants share a volume"
        remove("persistentvolumeclaim", name, site.namespace())
        told = f"PersistentVolume {volume['metadata']['name']}"
        after_s = repaired(
            lambda: told in site.changes("repaired"), "a claim that was removed is made anew, and recorded"
        )
        record_property("data_claim_repaired_after_s", after_s)
        # The cluster's own controller binds volumes, and looks at some only every 15 seconds.
        record_property("data_claim_bound_after_s", round(after_s + repaired(bound, "the claim is bound again"), 2))
    finally:
        site.close()
