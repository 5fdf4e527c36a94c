"""The chart against a real API server: what admission makes of it, and to what it keeps the platform's controller."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml

from tests.cluster import kubectl
from tests.helm.chart import CHART, Rendered, render
from tests.support.platform import until
from torpor_hub.cluster.access import Access
from torpor_hub.cluster.shape import shape_of
from torpor_hub.domain.units import Amount
from torpor_hub.podspecs.shape import ClusterShape
from torpor_hub.podspecs.tenant import TenantPlan, namespace_object, tenant_objects
from torpor_hub.podspecs.volumes import data_objects

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed"),
]
Json = dict[str, Any]
SOURCE = {"nfs": {"server": "files.example.org", "path": "/flights"}}
VALUES = ["--set", "registry.host=registry.example.org", "--set-json", f"data.source={json.dumps(SOURCE)}"]
KNOWN_WITHIN_S = 60.0


class Controller:
    """The controller's account in an installation that consists of its rights and the policies over them alone."""

    def __init__(self, release: str) -> None:
        self.found = render(*VALUES, release=release)
        self.shape: ClusterShape = shape_of(self.found.settings())
        self.user = f"system:serviceaccount:{release}:{self.shape.server_account}"

    def refusal(self, thing: Json, verb: str = "create") -> str:
        """Return why the API server refuses; empty where it would do it."""
        words = ["kubectl", "--as", self.user, verb, "--dry-run=server", "-f", "-"]
        ended = subprocess.run(words, input=json.dumps(thing), capture_output=True, text=True, check=False)
        return ended.stderr if ended.returncode else ""


@pytest.fixture(scope="module")
def controller(reach: Access) -> Iterator[Controller]:
    """The controller of a release of the test's own, once its policies are in force."""
    made = Controller(f"hc-{secrets.token_hex(3)}-torpor")
    kinds = ("ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    objects = [thing for thing in made.found.objects if thing["kind"] in kinds]
    kubectl.apply(*objects)
    foreign = _namespace(made.shape.platform_namespace, {})
    deadline = time.monotonic() + KNOWN_WITHIN_S
    while "begin with" not in made.refusal(foreign) and time.monotonic() < deadline:
        time.sleep(0.5)
    try:
        yield made
    finally:
        kubectl.delete(*objects)


@pytest.fixture
def plan(controller: Controller) -> Iterator[TenantPlan]:
    """A tenant whose namespace is there."""
    share = Amount(1000, 1024**3)
    made = TenantPlan("tn-1", "research", share, ("us-1",))
    namespace = namespace_object(made, controller.shape)
    kubectl.apply(namespace)
    yield made
    kubectl.delete(namespace)


def test_the_policies_are_well_typed(controller: Controller) -> None:
    names = [thing["metadata"]["name"] for thing in controller.found.all("ValidatingAdmissionPolicy")]
    for name in names:
        checked = until(lambda name=name: type_check(name), KNOWN_WITHIN_S, f"the types of {name} are checked")
        assert checked["typeChecking"].get("expressionWarnings", []) == [], name


def type_check(policy: str) -> Json:
    """Return what the cluster found of a policy's types; nothing before it has looked."""
    status: Json = kubectl.get("validatingadmissionpolicy", policy).get("status", {})
    return status if "typeChecking" in status else {}


def test_the_controller_makes_all_that_a_tenant_has(controller: Controller, plan: TenantPlan) -> None:
    assert controller.refusal(namespace_object(plan, controller.shape), "apply") == ""
    bindings = [thing for thing in tenant_objects(plan, controller.shape) if thing["kind"] == "RoleBinding"]
    assert [controller.refusal(thing) for thing in bindings] == ["", ""]
    volume, _ = data_objects(plan, "src-1", SOURCE, controller.shape)
    assert controller.refusal(volume) == ""


def test_the_controller_makes_no_namespace_but_tenants(controller: Controller, plan: TenantPlan) -> None:
    wanted = namespace_object(plan, controller.shape)
    labels = wanted["metadata"]["labels"]
    name = f"{controller.shape.namespace_prefix}other"
    assert "begin with" in controller.refusal(_namespace("default", labels))
    assert "label torpor/tenant" in controller.refusal(_namespace(name, {}))
    weak = labels | {"pod-security.kubernetes.io/enforce": "privileged"}
    assert "restricted" in controller.refusal(_namespace(name, weak))


def test_the_controller_changes_and_removes_no_namespace_of_others(controller: Controller, plan: TenantPlan) -> None:
    labels = namespace_object(plan, controller.shape)["metadata"]["labels"]
    other = _namespace(f"{controller.shape.namespace_prefix}agent", {})
    kubectl.apply(other)
    try:
        taken = controller.refusal(_namespace(other["metadata"]["name"], labels), "apply")
        assert "no tenant's" in taken
        assert "no tenant's" in controller.refusal(other, "delete")
    finally:
        kubectl.delete(other)


def test_the_controller_changes_and_removes_no_tenant_of_another_installation(
    controller: Controller, plan: TenantPlan
) -> None:
    nested = replace(controller.shape, namespace_prefix=f"{controller.shape.namespace_prefix}x-", release="x")
    theirs = namespace_object(plan, nested)
    volume, _ = data_objects(plan, "src-1", SOURCE, nested)
    kubectl.apply(theirs, volume)
    try:
        ours = controller.shape.instance_labels
        taken = theirs | {"metadata": theirs["metadata"] | {"labels": {**theirs["metadata"]["labels"], **ours}}}
        assert "another installation's" in controller.refusal(taken, "apply")
        assert "another installation's" in controller.refusal(theirs, "delete")
        assert "not the platform's" in controller.refusal(volume, "delete")
        binding = next(thing for thing in tenant_objects(plan, nested) if thing["kind"] == "RoleBinding")
        roles = {"roleRef": binding["roleRef"], "subjects": binding["subjects"]}
        assert "this installation's" in controller.refusal(binding | roles)
    finally:
        kubectl.delete(theirs, volume)


def test_the_controller_takes_up_its_tenants_of_an_older_version(controller: Controller, plan: TenantPlan) -> None:
    namespace = namespace_object(plan, controller.shape)
    name, label = namespace["metadata"]["name"], "torpor/instance"
    kubectl.run("label", "namespace", name, f"{label}-")
    without = {key: value for key, value in namespace["metadata"]["labels"].items() if key != label}
    marked = {"metadata": {**namespace["metadata"], "annotations": {"torpor/complete": "true"}, "labels": without}}
    assert "the label torpor/instance" in controller.refusal(namespace | marked, "apply"), "it has to set the label"
    assert controller.refusal(namespace, "apply") == ""


def test_the_controller_gives_no_other_role_and_to_nobody_else(controller: Controller, plan: TenantPlan) -> None:
    good = next(thing for thing in tenant_objects(plan, controller.shape) if thing["metadata"]["name"] == "torpor-hub")
    elsewhere = good | {"metadata": {"name": "torpor-hub", "namespace": "default"}}
    assert "tenants' namespaces" in controller.refusal(elsewhere)
    role = good["roleRef"] | {"name": "view"}
    assert controller.refusal(good | {"roleRef": role}) != ""
    somebody = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}
    assert "own accounts" in controller.refusal(good | {"subjects": [somebody]})
    swapped = {**good["subjects"][0], "name": controller.shape.server_account}
    assert "own accounts" in controller.refusal(good | {"subjects": [swapped]})


def test_the_controller_makes_no_volume_but_over_the_platforms_data(controller: Controller, plan: TenantPlan) -> None:
    def refusal(source: Json, **more: Any) -> str:
        volume, _ = data_objects(plan, "src-1", source, controller.shape)
        return controller.refusal(volume | {"spec": volume["spec"] | more})

    assert "data.source" in refusal({"hostPath": {"path": "/"}})
    assert "data.source" in refusal({"nfs": {"server": "files.example.org", "path": "/homes"}})
    claim = {"namespace": "kube-system", "name": "data", "apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    assert "tenant's namespace" in refusal(SOURCE, claimRef=claim)
    assert "for reading" in refusal(SOURCE, accessModes=["ReadWriteMany"])


def test_secrets_are_made_once_and_kept(prefix: str) -> None:
    namespace = f"{prefix}secrets"
    kubectl.run("create", "namespace", namespace)
    first = _secret_of(namespace)
    assert _secret_of(namespace)["data"] != first["data"], "none is a constant of the chart"
    # As an installation leaves it there.
    owner = {"meta.helm.sh/release-name": namespace, "meta.helm.sh/release-namespace": namespace}
    first["metadata"]["annotations"].update(owner)
    kubectl.apply(first)
    assert _secret_of(namespace)["data"] == first["data"]
    remove = '[{"op": "remove", "path": "/data/signing-key"}]'
    kubectl.run("-n", namespace, "patch", "secret", first["metadata"]["name"], "--type=json", "-p", remove)
    again = _secret_of(namespace)["data"]
    assert {name for name, value in again.items() if first["data"][name] != value} == {"signing-key"}


def test_admission_takes_every_pod_of_the_platform_as_restricted(prefix: str) -> None:
    namespace = f"{prefix}restricted"
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.apply(_namespace(namespace, level))
    pods = [(component, spec) for component, spec in render(*VALUES).pods() if component != "agent"]
    assert {component for component, _ in pods} == {"hub", "proxy", "server", "importer", "demo"}
    for component, spec in pods:
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": spec["serviceAccountName"], "namespace": namespace},
        }
        kubectl.apply(account)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": component, "namespace": namespace}, "spec": spec}
        kubectl.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


def _namespace(name: str, labels: Json) -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}}


def _secret_of(namespace: str) -> Json:
    """Return the generated Secret as a release in that namespace would have it now."""
    words = ["helm", "template", namespace, str(CHART), "--namespace", namespace, "--dry-run=server", *VALUES]
    done = subprocess.run(
        [*words, "--show-only", "templates/settings/secret.yaml"], capture_output=True, text=True, check=True
    )
    (secret,) = Rendered(tuple(filter(None, yaml.safe_load_all(done.stdout)))).all("Secret")
    return secret
