from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

from tests.podspecs.examples import JOB, POLICY, SHAPE
from torpor_hub.domain.workspaces import Mount
from torpor_hub.podspecs.job import job_object, job_secret
from torpor_hub.podspecs.policy import violations
from torpor_hub.runners.base import JobRun


def pod_of(run: JobRun) -> dict[str, Any]:
    template = job_object(run, SHAPE)["spec"]["template"]
    return {"metadata": {**template["metadata"], "namespace": "torpor-research"}, "spec": template["spec"]}


def variables(run: JobRun) -> dict[str, Any]:
    entries = pod_of(run)["spec"]["containers"][0]["env"]
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in entries}


def test_a_job_is_named_by_its_attempt_and_never_tried_again_by_the_cluster() -> None:
    made = job_object(replace(JOB, attempt=3), SHAPE)
    assert made["metadata"]["name"] == "job-1-a3"
    assert made["metadata"]["labels"]["torpor/job"] == "job-1"
    assert made["metadata"]["labels"]["torpor/attempt"] == "job-1-a3"
    assert made["spec"]["backoffLimit"] == 0
    assert "podFailurePolicy" not in made["spec"]
    assert made["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_a_job_stays_until_the_platform_has_taken_up_what_it_left() -> None:
    assert "ttlSecondsAfterFinished" not in job_object(JOB, SHAPE)["spec"]


def test_the_wrapper_ends_what_takes_too_long_long_before_the_cluster_does() -> None:
    assert job_object(replace(JOB, timeout_s=10.5), SHAPE)["spec"]["activeDeadlineSeconds"] == 10 + 3600
    assert job_object(JOB, SHAPE)["spec"]["activeDeadlineSeconds"] == 7 * 24 * 3600 + 3600


def test_a_job_stands_under_the_same_policy_as_a_workspace() -> None:
    assert violations(pod_of(replace(JOB, mounts=(Mount("data-src-1", "/data/src-1"),))), POLICY) == ()


def test_a_job_sees_its_submitters_home_where_the_workspace_sees_it() -> None:
    spec = pod_of(JOB)["spec"]
    (home,) = [volume for volume in spec["volumes"] if volume["name"] == "home"]
    paths = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
    assert home["persistentVolumeClaim"]["claimName"] == "home-usr-1"
    assert paths["home"] == "/home/user"
    assert paths["scratch"] == variables(JOB)["TORPOR_FOLDER"]


def test_the_wrapper_learns_who_it_is_and_whom_to_tell() -> None:
    found = variables(replace(JOB, variables={"COLOUR": "red", "TORPOR_ATTEMPT": "forged"}))
    assert found["COLOUR"] == "red"
    assert found["TORPOR_ATTEMPT"] == "job-1-a1"
    assert found["TORPOR_URL"] == "http://torpor-server:8090/services/torpor/"
    assert found["TORPOR_RANK"] == "0"


def test_the_attempts_tokens_are_in_no_job_and_no_pod_and_go_with_the_job() -> None:
    made, secret = job_object(JOB, SHAPE), job_secret(JOB, SHAPE, "uid-1")
    assert "the-token" not in json.dumps(made)
    assert base64.b64decode(secret["data"]["TORPOR_JOB_TOKEN"]) == b"the-token"
    assert [owner["uid"] for owner in secret["metadata"]["ownerReferences"]] == ["uid-1"]
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]


def test_each_of_many_ranks_is_a_pod_that_knows_its_number() -> None:
    spec = job_object(replace(JOB, ranks=4), SHAPE)["spec"]
    assert (spec["parallelism"], spec["completions"], spec["completionMode"]) == (4, 4, "Indexed")
    assert "job-completion-index" in str(variables(replace(JOB, ranks=4))["TORPOR_RANK"])


def test_hub_and_visitors_find_no_job_by_the_workspaces_label() -> None:
    assert pod_of(JOB)["metadata"]["labels"]["app.kubernetes.io/component"] == "job"
    assert "ports" not in pod_of(JOB)["spec"]["containers"][0]
