"""Every safety claim has a test that fails when the claim is broken: one line is changed in a copy, and the test must notice."""

from __future__ import annotations

import pytest

from tests.mutation.copies import Mutation, Tree

pytestmark = pytest.mark.slow

HUB = "hub/torpor_hub/"
STRANGER = "tests/api/test_every_route.py::test_a_stranger_gets_the_answer_for_what_does_not_exist"
PERSON = "tests/api/test_every_route.py::test_a_person_is_refused_what_only_programs_and_attempts_do"
AGENT = "tests/agent/test_agent.py::"
NODE = "tests/agent/test_node.py::"
WORKSPACES = "tests/services/test_workspaces.py::"
POINTER = "tests/services/test_captures_pointer.py::"
KUBE = "tests/spawning/test_kube_rules.py::"
PODS = "tests/places/test_pods_and_faults.py::"
ON_PODS = "tests/controllers/test_workspaces_on_pods.py::"
TENANTS = "tests/controllers/test_tenants_and_faults.py::"
WALLS = "tests/podspecs/test_tenant_objects.py::test_nobody_speaks_with_anybody_unless_it_is_said"
POLICIES = {
    "deny-all": '        ("deny-all", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),\n',
    "allow-names": '        ("allow-names", _egress({}, [_names(shape)])),\n',
    "allow-api": '        ("allow-api", _egress({}, [_to(shape, "server", shape.server_port)])),\n',
    "allow-hub": '        ("allow-hub", _egress(_component(workspace.COMPONENT), [_to(shape, "hub", shape.hub_port)])),\n',
    "allow-visitors": '        ("allow-visitors", _visitors(shape)),\n',
}


MUTATIONS = (
    Mutation(
        "an image counts once it was read back",
        HUB + "agent/work.py",
        "await subject.capture.verify(subject.task.repository, result.digest)",
        "await asyncio.sleep(0)",
        AGENT + "test_an_image_that_does_not_read_back_is_never_reported",
    ),
    Mutation(
        "reading back compares digest and size",
        HUB + "oci/layout.py",
        "if (found, size) != (blob.digest, blob.size_bytes):",
        "if found == size:",
        AGENT + "test_an_image_that_does_not_read_back_is_never_reported",
    ),
    Mutation(
        "a capture that is given up thaws",
        HUB + "agent/work.py",
        '            await self._thaw(claim)\n            await self._report_failure(claim, "CANCELLED"',
        '            await self._report_failure(claim, "CANCELLED"',
        AGENT + "test_a_cancel_in_the_answer_to_a_heartbeat_ends_the_copy_and_thaws",
    ),
    Mutation(
        "a result that nobody took thaws",
        HUB + "agent/work.py",
        "        stays = False\n",
        "        stays = True\n",
        AGENT + "test_an_api_that_is_away_does_not_leave_the_workspace_frozen",
    ),
    Mutation(
        "a claim that was taken over is not thawed",
        HUB + "agent/work.py",
        "if verdict is Verdict.CANCELLED:",
        "if verdict:",
        AGENT + "test_a_claim_that_was_taken_over_is_left_to_the_one_who_has_it",
    ),
    Mutation(
        "what was thawed while it was read is not reported as saved",
        HUB + "agent/work.py",
        "        if claim.handle:\n            await self._promise(claim)\n",
        "",
        AGENT + "test_a_workspace_that_was_thawed_before_it_was_saved_is_not_reported_as_saved",
    ),
    Mutation(
        "on a node too",
        HUB + "agent/node.py",
        " or not self._cgroups.is_frozen(group)",
        "",
        NODE + "test_what_was_thawed_meanwhile_cannot_be_promised",
    ),
    Mutation(
        "only the container of the pod that is meant is saved",
        HUB + "agent/containers.py",
        "if notes.get(POD) != pod_uid:",
        "if not notes:",
        NODE + "test_a_container_that_cannot_be_saved_is_refused_with_the_reason",
    ),
    Mutation(
        "a lease ends by itself",
        HUB + "agent/leases.py",
        "self.deadline - boot_time()",
        "self.deadline",
        NODE + "test_what_is_past_its_deadline_or_has_no_lease_is_thawed_and_the_rest_is_not",
    ),
    Mutation(
        "what is being removed is not thawed by an agent that ends",
        HUB + "agent/node.py",
        "if lease.promised and lease.left_s > 0",
        "if not lease",
        NODE + "test_an_agent_that_ends_thaws_what_it_froze_and_asks_about_what_was_promised",
    ),
    Mutation(
        "a registry's word that a blob is there is not enough",
        HUB + "oci/registry.py",
        "            self._read_edge(repository, blob, first)",
        "            continue",
        "tests/oci/test_registry_faults.py::test_a_registry_that_says_it_has_what_it_lost_is_found_out",
    ),
    Mutation(
        "a controller writes under its epoch",
        HUB + "stores/base.py",
        "if row is None or row.epoch != epoch:",
        "if row is None:",
        "tests/stores/test_stores.py::test_a_lease_has_one_holder_and_a_new_one_fences_the_old",
    ),
    Mutation(
        "an agent reports under its fence",
        HUB + "services/captures.py",
        "if operation.fence != fence or operation.ended_at is not None:",
        "if operation.ended_at is not None:",
        WORKSPACES + "test_an_agent_whose_claim_was_taken_over_cannot_end_the_sleep",
    ),
    Mutation(
        "an operation that was given up takes no result",
        HUB + "services/captures.py",
        "if operation.fence != fence or operation.ended_at is not None:",
        "if operation.fence != fence:",
        POINTER + "test_a_result_that_comes_after_the_sleep_was_given_up_moves_nothing",
    ),
    Mutation(
        "the pointer moves by compare-and-swap",
        HUB + "services/sleeps.py",
        'if row.checkpoint_id != operation.payload.get("expected"):',
        'if row.checkpoint_id == "":',
        POINTER + "test_a_pointer_that_moved_meanwhile_is_not_moved_again_and_nothing_is_removed",
    ),
    Mutation(
        "a cancel that came first wins",
        HUB + "services/sleeps.py",
        "    if operation.cancel:\n",
        "    if operation.cancel and operation.ended_at:\n",
        WORKSPACES + "test_a_cancel_before_the_end_of_a_sleep_keeps_the_workspace_running",
    ),
    Mutation(
        "a start fits the tenant's quota",
        HUB + "services/starts.py",
        "    ledger.reserve(tx, claim_of(tx, row))\n",
        "    ledger.charge(tx, claim_of(tx, row))\n",
        WORKSPACES + "test_a_start_beyond_the_tenants_quota_is_refused_with_the_numbers_and_holds_nothing",
    ),
    *(
        Mutation(
            f"the routes of {name} ask the policy",
            f"{HUB}services/{name}.py",
            "    check(actor, action, thing(row))\n",
            "",
            STRANGER,
        )
        for name in ("workspaces", "jobs", "datasets", "imports")
    ),
    Mutation(
        "captures are claimed by agents only",
        HUB + "api/routes/programs.py",
        'check(actor, Action.CLAIM, Object("capture"))',
        "str(actor)",
        PERSON,
    ),
    Mutation(
        "starts are asked for by the hub only",
        HUB + "api/routes/programs.py",
        'check(actor, Action.CREATE, Object("start"))',
        "str(actor)",
        PERSON,
    ),
    Mutation(
        "a poll that ends in an error does not mean stopped",
        HUB + "spawning/kube.py",
        'self.log.warning("%s: nobody knows whether its pod runs: %s", self.workspace_id, error)',
        "self._ended_with = 1",
        KUBE + "test_an_error_never_means_that_a_server_has_stopped",
    ),
    Mutation(
        "a pod is gone once a live list says so",
        HUB + "spawning/kube.py",
        "if own is None or pods.is_over(own):",
        "if own is None or pods.uid(own):",
        KUBE + "test_an_error_never_means_that_a_server_has_stopped",
    ),
    Mutation(
        "a pod is adopted by its token",
        HUB + "spawning/adoption.py",
        "return pods.shows(pod, token_of(pods.label(pod, names.GRANT)))",
        "return True",
        KUBE + "test_a_pod_of_another_key_ends_the_start_at_once",
    ),
    Mutation(
        "a pod is removed by its UID",
        HUB + "places/kubernetes.py",
        "namespace, uid=handle, grace_s=grace)",
        "namespace, grace_s=grace)",
        PODS + "test_a_start_that_took_the_name_meanwhile_is_left_alone",
    ),
    Mutation(
        "what was removed does not run, whatever a watch still shows",
        HUB + "places/kubernetes.py",
        "self._removed.add(handle)",
        "self._removed.clear()",
        PODS + "test_what_was_removed_is_not_said_to_run_by_a_watch_that_is_late",
    ),
    Mutation(
        "a namespace that cannot be listed is unknown",
        HUB + "places/pod_view.py",
        'if not sight.pods.knows(pod["metadata"]["namespace"]):',
        "if not pod:",
        PODS + "test_a_namespace_that_cannot_be_listed_any_more_hides_none_of_its_workspaces_and_no_others",
    ),
    Mutation(
        "a node that does not answer makes a workspace unreachable",
        HUB + "places/pod_facts.py",
        "answering=alive and around.node_answers and _is_ready(pod)",
        "answering=alive and _is_ready(pod)",
        ON_PODS + "test_while_its_node_is_off_a_workspace_is_unreachable_and_then_runs_again",
    ),
    Mutation(
        "an end is believed when a live list agrees",
        HUB + "controllers/workspaces.py",
        "        fact = await self._find(seen)\n        if fact is not None and fact.alive:\n            return\n        log",
        "        fact = seen.view.fact\n        log",
        ON_PODS + "test_a_late_or_lying_watch_ends_nothing",
    ),
    Mutation(
        "a failed start keeps what was saved",
        HUB + "controllers/workspaces.py",
        "    row.unsaved = row.unsaved and kept\n",
        "",
        ON_PODS + "test_a_start_that_can_never_succeed_ends_with_its_cause_and_leaves_nothing",
    ),
    *(
        Mutation(f"a tenant has the policy {name}", HUB + "podspecs/network.py", line, "", WALLS)
        for name, line in POLICIES.items()
    ),
    Mutation(
        "a namespace of somebody else is not taken over",
        HUB + "controllers/tenants.py",
        "        _require_ours(found, plan, self._shape)\n",
        "",
        TENANTS + "test_a_namespace_of_somebody_else_is_not_touched",
    ),
    Mutation(
        "a node's workspaces fall asleep a few at once",
        HUB + "domain/draining.py",
        "if busy[waiting[key]] < AT_ONCE_PER_NODE:",
        "if key:",
        "tests/domain/test_who_is_drained_next.py::test_two_of_each_node_go_to_sleep_at_once",
    ),
    Mutation(
        "a cordon alone puts nobody to sleep",
        HUB + "podspecs/room.py",
        "return bool(labels.get(names.DRAIN, STAYS) != STAYS)",
        'return bool(labels.get(names.DRAIN, STAYS) != STAYS or node["spec"].get("unschedulable"))',
        "tests/podspecs/test_room.py::test_a_cordon_alone_empties_nothing",
    ),
    Mutation(
        "a namespace of another installation is left alone",
        HUB + "controllers/tenants.py",
        "if labels.get(names.INSTANCE, ours) != ours:",
        "if not ours:",
        TENANTS + "test_a_namespace_of_another_installation_is_not_touched",
    ),
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(tmp_path_factory.mktemp("copy"))


def test_the_copy_is_what_runs_and_its_tests_pass_as_it_is(tree: Tree) -> None:
    where = tree.run("-c", "import torpor_hub, torpor; print(torpor_hub.__file__, torpor.__file__)")
    assert [part.startswith(str(tree.folder)) for part in where.stdout.split()] == [True, True], where.stderr
    assert tree.not_passed(*MUTATIONS) == ""


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.claim)
def test_a_broken_claim_makes_its_test_fail(tree: Tree, mutation: Mutation) -> None:
    assert tree.failed(mutation) == [mutation.test]
