from __future__ import annotations

from tests.podspecs.examples import SHAPE
from torpor_hub.podspecs.rights import API, CONTROLLER, TENANT_CONTROLLER, TENANT_HUB, Role, roles, rules

ROLES = roles(SHAPE)


def may(role: Role, verb: str, resource: str) -> bool:
    return any(verb in rule["verbs"] and resource in rule["resources"] for rule in rules(role))


def test_the_hub_removes_nothing_and_reads_no_logs_and_no_secrets() -> None:
    hub = [role for role in ROLES.values() if role.account == SHAPE.hub_account]
    assert [role.in_tenants for role in hub] == [True]
    assert all(may(hub[0], verb, "pods") for verb in ("list", "watch", "create"))
    granted = {verb for rule in rules(hub[0]) for verb in rule["verbs"]}
    assert granted == {"list", "watch", "create"}
    assert not may(hub[0], "get", "pods/log")
    assert not may(hub[0], "list", "secrets")


def test_no_role_has_a_wildcard_or_can_raise_itself() -> None:
    for role in ROLES.values():
        for rule in rules(role):
            every = [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
            assert not {"*", "escalate", "impersonate"}.intersection(every)
            assert "pods/exec" not in every


def test_the_controller_may_give_away_exactly_the_two_roles_of_tenants() -> None:
    (bind,) = [rule for rule in rules(ROLES[CONTROLLER]) if "bind" in rule["verbs"]]
    assert bind["resourceNames"] == [ROLES[TENANT_HUB].name, ROLES[TENANT_CONTROLLER].name]


def test_what_lies_in_namespaces_is_not_the_controllers_in_the_whole_cluster() -> None:
    for resource in ("pods", "secrets", "jobs", "persistentvolumeclaims"):
        assert may(ROLES[TENANT_CONTROLLER], "list", resource)
        assert not may(ROLES[CONTROLLER], "list", resource)


def test_the_api_alone_may_only_learn_who_asks() -> None:
    assert rules(ROLES[API]) == [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
    ]
