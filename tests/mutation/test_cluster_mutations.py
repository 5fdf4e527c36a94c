"""The same for claims that only an API server, a hub beside it, or Helm can notice."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.mutation.copies import Mutation, Tree
from torpor_hub.cluster import access

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(access.CONFIG not in os.environ, reason=f"needs the test cluster: {access.CONFIG} is not set"),
    pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed"),
]
CLIENT = "hub/torpor_hub/cluster/client.py"
CHART = "tests/helm/test_walls_as_rendered.py::test_every_pod_of_the_platform_is_behind_a_wall"
ENABLED = "{{- if .Values.networkPolicy.enabled }}\n"
WALLS = {
    **dict.fromkeys(("server", "hub", "proxy", "importer"), ENABLED),
    "agent": "{{- if and .Values.registry.host .Values.networkPolicy.enabled }}\n",
    "data": "{{- if and .Values.data.enabled .Values.data.flights .Values.networkPolicy.enabled }}\n",
}
MUTATIONS = (
    Mutation(
        "a removal by UID spares what has the name now",
        CLIENT,
        '            options["preconditions"] = {"uid": uid}\n',
        "            pass\n",
        "tests/cluster/test_client.py::test_a_removal_meant_for_another_object_of_that_name_is_refused",
    ),
    Mutation(
        "an API server that does not answer does not mean that a server has stopped",
        "hub/torpor_hub/spawning/kube.py",
        "            if not known or self._seen() is not None:\n",
        "            if not known:\n                self._ended_with = 0\n"
        "            if not known or self._seen() is not None:\n",
        "tests/cluster/test_spawner.py::test_a_hub_that_starts_without_the_api_server_keeps_its_servers",
    ),
    *(
        Mutation(
            f"the chart has the policy of {name}",
            f"helm/torpor/templates/{name}/networkpolicy.yaml",
            condition,
            "{{- if false }}\n",
            CHART,
        )
        for name, condition in WALLS.items()
    ),
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(tmp_path_factory.mktemp("copy"))


def test_the_tests_of_unbroken_claims_pass(tree: Tree) -> None:
    assert tree.not_passed(*MUTATIONS) == ""


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.claim)
def test_a_broken_claim_makes_its_test_fail(tree: Tree, mutation: Mutation) -> None:
    assert tree.failed(mutation) == [mutation.test]
