from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.podspecs.examples import GIB, IMAGE, POLICY, SHAPE, pod
from torpor_hub.domain.units import Amount
from torpor_hub.podspecs.pods import literal
from torpor_hub.podspecs.policy import violations


def container(made: dict[str, Any]) -> dict[str, Any]:
    (only,) = made["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def variables(made: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container(made)["env"]}


def mounts(made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every mount by its path, with what lies behind it."""
    volumes = {volume["name"]: volume for volume in made["spec"]["volumes"]}
    return {mount["mountPath"]: {**mount, **volumes[mount["name"]]} for mount in container(made)["volumeMounts"]}


def test_a_pod_is_found_by_the_ids_of_its_workspace_and_carries_no_text_of_people() -> None:
    made = pod(name="my-notes", user="ada", profile="large")
    assert made["metadata"]["name"] == "ws-1"
    assert made["metadata"]["namespace"] == "torpor-research"
    assert made["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "torpor",
        "app.kubernetes.io/component": "workspace",
        "torpor/tenant": "ten-1",
        "torpor/workspace": "ws-1",
        "torpor/grant": "gr-1",
        "torpor/user": "usr-1",
    }
    assert "my-notes" not in str(made["metadata"])


def test_the_platforms_variables_win_over_the_hubs() -> None:
    found = variables(pod(environment={"JUPYTERHUB_USER": "mallory", "TORPOR_URL": "http://a/"}))
    assert found["JUPYTERHUB_USER"] == "mallory"
    assert found["TORPOR_WORKSPACE"] == "ws-1"
    assert found["TORPOR_GRANT"] == "gr-1"
    assert found["HOME"] == "/home/user"


def test_nothing_ends_a_workspace_by_itself() -> None:
    made = pod()
    assert made["spec"]["restartPolicy"] == "Never"
    assert not {"livenessProbe", "startupProbe", "lifecycle"} & container(made).keys()
    assert "ephemeral-storage" not in str(container(made)["resources"])
    disks = [volume["emptyDir"] for volume in made["spec"]["volumes"] if volume["name"] in ("runtime", "logs", "tmp")]
    assert disks == [{}, {}, {}]


def test_a_node_that_does_not_answer_evicts_nothing() -> None:
    lost = [toleration for toleration in pod()["spec"]["tolerations"] if toleration["effect"] == "NoExecute"]
    assert {toleration["key"] for toleration in lost} == {
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    }
    assert all("tolerationSeconds" not in toleration for toleration in lost)


def test_a_workspace_is_ready_once_its_server_answers_below_its_own_address() -> None:
    probe = container(pod())["readinessProbe"]
    assert probe["httpGet"] == {"path": "/user/ada/api", "port": 8888}
    assert probe["periodSeconds"] == 1


def test_what_is_reserved_is_what_is_got() -> None:
    resources = container(pod(amount=Amount(1500, 2 * GIB, 2)))["resources"]
    assert resources["requests"] == resources["limits"]
    assert resources["limits"] == {"cpu": "1500m", "memory": str(2 * GIB), "nvidia.com/gpu": "2"}
    assert "nvidia.com/gpu" not in container(pod())["resources"]["limits"]


def test_home_is_the_users_own_claim_and_data_can_only_be_read() -> None:
    found = mounts(pod())
    assert found["/home/user"]["persistentVolumeClaim"] == {"claimName": "home-usr-1"}
    assert found["/data/src-1"]["persistentVolumeClaim"] == {"claimName": "data-src-1", "readOnly": True}
    assert found["/data/src-1"]["readOnly"] is True


def test_what_is_no_part_of_a_saved_environment_lies_outside_of_the_container() -> None:
    found = mounts(pod())
    outside = {path for path, mount in found.items() if "emptyDir" in mount}
    assert outside == {"/opt/workspace/runtime", "/opt/workspace/logs", "/tmp", "/dev/shm"}
    assert found["/dev/shm"]["emptyDir"]["medium"] == "Memory"


def test_pods_of_one_home_share_a_node_only_where_the_home_can_be_on_one_only() -> None:
    (term,) = pod()["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"]["torpor/user"] == "usr-1"
    assert "podAffinity" not in pod(replace(SHAPE, home_access_mode="ReadWriteMany"))["spec"]["affinity"]


def test_no_token_and_no_addresses_of_services_reach_a_workspace() -> None:
    spec = pod()["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["serviceAccountName"] == SHAPE.service_account


def test_a_pull_secret_is_named_only_where_there_is_a_registry() -> None:
    assert pod()["spec"]["imagePullSecrets"] == [{"name": "torpor-pull"}]
    assert "imagePullSecrets" not in pod(replace(SHAPE, registry_host=""))["spec"]


def test_the_pod_that_the_platform_makes_keeps_its_own_policy() -> None:
    assert violations(pod(image=IMAGE), POLICY) == ()


def as_the_kubelet_reads(text: str) -> str:
    """Expand ``text`` where no variable is set. Source: Kubernetes' third_party/forked/golang/expansion."""
    out, at = "", 0
    while at < len(text):
        if text[at] != "$" or at + 1 == len(text):
            out, at = out + text[at], at + 1
        elif text[at + 1] == "$":
            out, at = out + "$", at + 2
        elif text[at + 1] == "(" and ")" in text[at + 2 :]:
            at = text.index(")", at + 2) + 1
        else:
            out, at = out + text[at : at + 2], at + 2
    return out


@given(st.text(alphabet="$()aé{}"))
def test_a_program_gets_exactly_the_value_that_was_given(text: str) -> None:
    assert as_the_kubelet_reads(literal(text)) == text
