from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

from tests.podspecs.examples import GIB, HOST, PLAN, SHAPE, pod
from torpor_hub.domain.units import Amount
from torpor_hub.podspecs.tenant import home_object, namespace_object, tenant_objects
from torpor_hub.podspecs.volumes import data_objects


def of_kind(kind: str, **changes: Any) -> list[dict[str, Any]]:
    return [thing for thing in tenant_objects(replace(PLAN, **changes), SHAPE) if thing["kind"] == kind]


def policies() -> dict[str, Any]:
    return {policy["metadata"]["name"]: policy["spec"] for policy in of_kind("NetworkPolicy")}


def test_a_tenants_namespace_takes_nothing_above_restricted() -> None:
    made = namespace_object(PLAN, SHAPE)
    assert made["metadata"]["name"] == "torpor-research"
    assert made["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert made["metadata"]["labels"]["torpor/tenant"] == "ten-1"


def test_what_lies_in_no_namespace_is_marked_as_this_installations() -> None:
    shape = replace(SHAPE, release="green")
    volume, claim = data_objects(PLAN, "src-1", {"nfs": {}}, shape)
    for thing in (namespace_object(PLAN, shape), volume):
        assert thing["metadata"]["labels"]["torpor/instance"] == "torpor-system.green"
    assert "torpor/instance" not in claim["metadata"]["labels"]


def test_all_walls_stand_before_the_hub_may_make_a_pod() -> None:
    made = tenant_objects(PLAN, SHAPE)
    assert made[0]["metadata"]["name"] == "torpor-controller"
    assert made[-1]["metadata"]["name"] == "torpor-hub"
    kinds = [thing["kind"] for thing in made]
    assert kinds[1] == "NetworkPolicy"
    assert kinds.index("LimitRange") < kinds.index("ResourceQuota")


def test_everything_of_a_tenant_is_in_its_namespace_under_its_label() -> None:
    for thing in tenant_objects(PLAN, SHAPE):
        assert thing["metadata"]["namespace"] == "torpor-research"
        assert thing["metadata"]["labels"]["torpor/tenant"] == "ten-1"


def test_hub_and_controller_get_the_named_roles_and_no_other() -> None:
    found = {binding["subjects"][0]["name"]: binding["roleRef"] for binding in of_kind("RoleBinding")}
    assert {account: reference["name"] for account, reference in found.items()} == {
        "torpor-hub": "torpor-tenant-hub",
        "torpor-server": "torpor-tenant-controller",
    }
    assert {reference["kind"] for reference in found.values()} == {"ClusterRole"}


def test_the_quota_is_the_tenants_share_and_disk_is_limited_nowhere() -> None:
    (quota,) = of_kind("ResourceQuota", share=Amount(4000, 8 * GIB, 1))
    assert quota["spec"]["hard"] == {
        "requests.cpu": "4000m",
        "limits.cpu": "4000m",
        "requests.memory": str(8 * GIB),
        "limits.memory": str(8 * GIB),
        "requests.nvidia.com/gpu": "1",
    }
    assert "ephemeral-storage" not in json.dumps(tenant_objects(PLAN, SHAPE))


def test_nobody_speaks_with_anybody_unless_it_is_said() -> None:
    assert policies()["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert set(policies()) == {"deny-all", "allow-names", "allow-api", "allow-hub", "allow-visitors"}


def test_all_pods_reach_names_and_api_and_workspaces_alone_reach_the_hub() -> None:
    found = policies()
    assert found["allow-names"]["podSelector"] == found["allow-api"]["podSelector"] == {}
    assert {port["port"] for port in found["allow-names"]["egress"][0]["ports"]} == {53, 5353}
    assert found["allow-hub"]["podSelector"]["matchLabels"] == {"app.kubernetes.io/component": "workspace"}
    assert found["allow-hub"]["egress"][0]["ports"] == [{"protocol": "TCP", "port": 8081}]


def test_only_hub_and_proxy_of_this_installation_come_in_and_to_workspaces_only() -> None:
    visitors = policies()["allow-visitors"]
    assert visitors["podSelector"]["matchLabels"] == {"app.kubernetes.io/component": "workspace"}
    ((peer,), (port,)) = (visitors["ingress"][0]["from"], visitors["ingress"][0]["ports"])
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "torpor-system"}
    assert peer["podSelector"]["matchExpressions"][0]["values"] == ["hub", "proxy"]
    assert port["port"] == 8888


def test_what_an_installation_declares_is_reached_by_user_code_and_nothing_else_is_opened() -> None:
    rule = {"to": [{"ipBlock": {"cidr": "198.18.0.1/32"}}], "ports": [{"protocol": "TCP", "port": 5000}]}
    shape = replace(SHAPE, egress=(rule,))
    (declared,) = [thing for thing in tenant_objects(PLAN, shape) if thing["metadata"]["name"] == "allow-declared"]
    assert declared["spec"]["egress"] == [rule]
    assert declared["spec"]["podSelector"]["matchExpressions"][0]["values"] == ["workspace", "job"]


def test_the_pull_secret_holds_the_registrys_account_and_pods_name_it() -> None:
    (secret,) = of_kind("Secret")
    content = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
    assert base64.b64decode(content["auths"][HOST]["auth"]) == b"puller:secret"
    assert pod()["spec"]["imagePullSecrets"] == [{"name": secret["metadata"]["name"]}]
    assert "auths" in json.loads(base64.b64decode(of_kind("Secret", pull_user="")[0]["data"][".dockerconfigjson"]))


def test_without_a_registry_there_is_no_pull_secret() -> None:
    assert "Secret" not in [thing["kind"] for thing in tenant_objects(PLAN, replace(SHAPE, registry_host=""))]


def test_pods_run_under_an_account_without_a_token() -> None:
    (account,) = of_kind("ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert pod()["spec"]["serviceAccountName"] == account["metadata"]["name"]


def test_no_workspace_may_be_evicted_however_many_there_are() -> None:
    (budget,) = of_kind("PodDisruptionBudget")
    assert budget["spec"]["minAvailable"] >= 1_000_000
    wanted = budget["spec"]["selector"]["matchLabels"].items()
    assert wanted <= pod()["metadata"]["labels"].items()


def test_a_home_is_a_claim_of_its_member_in_the_class_and_mode_that_were_set() -> None:
    made = home_object(PLAN, "usr-1", replace(SHAPE, storage_class="fast", home_access_mode="ReadWriteMany"))
    assert made["metadata"]["name"] == "home-usr-1"
    assert made["metadata"]["labels"]["torpor/user"] == "usr-1"
    assert made["spec"]["storageClassName"] == "fast"
    assert made["spec"]["accessModes"] == ["ReadWriteMany"]
    assert "storageClassName" not in home_object(PLAN, "usr-1", SHAPE)["spec"]


def test_data_is_bound_to_one_claim_of_one_tenant_and_outlives_both() -> None:
    volume, claim = data_objects(PLAN, "src-1", {"nfs": {"server": "files", "path": "/flights"}}, SHAPE)
    assert volume["spec"]["nfs"]["path"] == "/flights"
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert volume["spec"]["claimRef"]["namespace"] == claim["metadata"]["namespace"] == "torpor-research"
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert claim["spec"]["storageClassName"] == volume["spec"]["storageClassName"] == ""
