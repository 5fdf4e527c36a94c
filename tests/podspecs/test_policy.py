from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.podspecs.examples import DIGEST, GIB, HOST, POLICY, pod
from torpor_hub.domain.units import Amount
from torpor_hub.podspecs.policy import violations

Pod = dict[str, Any]


def spec(**fields: Any) -> Callable[[Pod], None]:
    return lambda made: made["spec"].update(fields)


def container(**fields: Any) -> Callable[[Pod], None]:
    return lambda made: made["spec"]["containers"][0].update(fields)


def security(**fields: Any) -> Callable[[Pod], None]:
    return lambda made: made["spec"]["containers"][0]["securityContext"].update(fields)


def labels(**fields: Any) -> Callable[[Pod], None]:
    return lambda made: made["metadata"]["labels"].update(fields)


def volume(**source: Any) -> Callable[[Pod], None]:
    return lambda made: made["spec"]["volumes"].append({"name": "more", **source})


def limits(**values: str) -> Callable[[Pod], None]:
    return lambda made: made["spec"]["containers"][0]["resources"]["limits"].update(values)


def second(**fields: Any) -> Callable[[Pod], None]:
    """Add an init container like the first, but for ``fields``."""
    return lambda made: made["spec"].update(
        initContainers=[{**made["spec"]["containers"][0], "name": "init", **fields}]
    )


TOKEN = [{"serviceAccountToken": {"path": "token"}}]
CASES = {
    "a host path": (volume(hostPath={"path": "/etc"}), "The volume 'more' is a path of the node: '/etc'."),
    "a secret": (
        volume(secret={"secretName": "torpor-pull"}),
        "The volume 'more' is of a kind that is not allowed: secret.",
    ),
    "a projected token": (
        volume(projected={"sources": TOKEN}),
        "The volume 'more' is of a kind that is not allowed: projected.",
    ),
    "nfs": (volume(nfs={"server": "a", "path": "/"}), "The volume 'more' is of a kind that is not allowed: nfs."),
    "another's home": (
        volume(persistentVolumeClaim={"claimName": "home-usr-2"}),
        "The claim 'home-usr-2' is neither the user's home nor data that they may read.",
    ),
    "data to write": (
        volume(persistentVolumeClaim={"claimName": "data-src-1"}),
        "The claim 'data-src-1' holds data and may only be mounted to read.",
    ),
    "the node's network": (spec(hostNetwork=True), "'hostNetwork' would share a namespace of the node."),
    "the node's processes": (spec(hostPID=True), "'hostPID' would share a namespace of the node."),
    "the node's memory": (spec(hostIPC=True), "'hostIPC' would share a namespace of the node."),
    "a node by name": (spec(nodeName="node-1"), "'nodeName' goes around the scheduler: 'node-1'."),
    "a restart in place": (spec(restartPolicy="OnFailure"), "a restart in place would lose what was installed."),
    "a token": (spec(automountServiceAccountToken=True), "the pod would get a token of the cluster."),
    "another account": (spec(serviceAccountName="admin"), "The service account 'admin' is not 'torpor-user'."),
    "a sysctl": (
        spec(securityContext={"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "0"}]}),
        "'sysctls' would change the node's kernel settings.",
    ),
    "privileged": (security(privileged=True), "The container 'workspace' is privileged."),
    "escalation": (security(allowPrivilegeEscalation=True), "The container 'workspace' could gain privileges."),
    "escalation unsaid": (security(allowPrivilegeEscalation=None), "The container 'workspace' could gain privileges."),
    "a capability": (
        security(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
        "The container 'workspace' keeps capabilities: SYS_ADMIN.",
    ),
    "capabilities kept": (security(capabilities={}), "The container 'workspace' keeps capabilities: not all dropped."),
    "root": (security(runAsUser=0), "The container 'workspace' may run as root."),
    "root unsaid": (security(runAsNonRoot=False), "The container 'workspace' may run as root."),
    "no seccomp": (
        security(seccompProfile={"type": "Unconfined"}),
        "does not run under the runtime's seccomp profile.",
    ),
    "all of proc": (security(procMount="Unmasked"), "The container 'workspace' would see all of '/proc'."),
    "another image": (container(image=f"evil.example/x@{DIGEST}"), "The image 'evil.example/x@"),
    "a neighbour's prefix": (container(image=f"{HOST}/torpor-evil/x@{DIGEST}"), "is not the tenant's to run"),
    "a tag": (container(image=f"{HOST}/torpor/profiles/small:1"), "is not named by its digest."),
    "a liveness probe": (container(livenessProbe={"exec": {}}), "has 'livenessProbe', which could end it"),
    "a port of the node": (container(ports=[{"hostPort": 80}]), "would take a port of the node."),
    "the pull secret": (
        container(envFrom=[{"secretRef": {"name": "torpor-pull"}}]),
        "The container 'workspace' would read the Secret 'torpor-pull'.",
    ),
    "too much memory": (limits(memory="5Gi"), "Memory: 5 GiB asked, at most 4 GiB allowed."),
    "too much CPU": (limits(cpu="2500m"), "CPU: 2.5 cores asked, at most 2 cores allowed."),
    "too many GPUs": (limits(**{"nvidia.com/gpu": "2"}), "GPUs (nvidia.com/gpu): 2 asked, at most 1 allowed."),
    "no limits": (container(resources={}), "The container 'workspace' has no limit on cpu and memory."),
    "a limit on disk": (limits(**{"ephemeral-storage": "1Gi"}), "has a limit on disk, over which it would be removed."),
    "no quantity": (
        limits(memory="much"),
        "A limit of the container 'workspace' cannot be read: 'much' is no quantity.",
    ),
    "no user": (labels(**{"torpor/user": ""}), "The label 'torpor/user' is missing."),
    "another tenant": (labels(**{"torpor/tenant": "ten-2"}), "names another tenant: 'ten-2'."),
    "an init container": (second(image=f"evil.example/x@{DIGEST}"), "The image 'evil.example/x@"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_pod_is_refused_with_the_name_of_what_is_wrong(case: str) -> None:
    change, sentence = CASES[case]
    made = pod()
    change(made)
    assert any(sentence in said for said in violations(made, POLICY)), violations(made, POLICY)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    made = pod()
    for change in (spec(hostNetwork=True), security(privileged=True), limits(memory="5Gi")):
        change(made)
    assert len(violations(made, POLICY)) == 3


def test_a_pod_in_another_namespace_is_refused() -> None:
    assert violations(pod(), replace(POLICY, namespace="torpor-other")) == (
        "The namespace 'torpor-research' is not the tenant's 'torpor-other'.",
    )


def test_two_containers_count_together() -> None:
    made = pod(amount=Amount(1500, 3 * GIB))
    second()(made)
    assert violations(made, POLICY) == (
        "CPU: 3 cores asked, at most 2 cores allowed.",
        "Memory: 6 GiB asked, at most 4 GiB allowed.",
    )


def test_an_image_named_by_a_tag_is_allowed_where_there_is_no_registry() -> None:
    image = "images.example.org/torpor/workspace:1"
    made = pod()
    container(image=image)(made)
    assert violations(made, replace(POLICY, images=(image,), by_digest=False)) == ()
    assert violations(made, replace(POLICY, images=(image,))) != ()
