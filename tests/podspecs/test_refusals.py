from __future__ import annotations

import pytest

from torpor_hub.podspecs.refusals import explain

# The texts are those of an API server of version 1.34; tests/cluster sees that it still says so.
POD = 'pods "ws-1" is forbidden: '
CASES = {
    "QUOTA": (
        POD + "exceeded quota: torpor, requested: limits.memory=3221225472,requests.memory=3221225472, "
        "used: limits.memory=201326592,requests.memory=201326592, limited: limits.memory=2Gi,requests.memory=2Gi",
        "The tenant's share of the cluster is used up (memory: 3 GiB asked, 192 MiB of 2 GiB in use).",
    ),
    "QUOTA of two": (
        POD + "exceeded quota: torpor, requested: limits.cpu=1500m,requests.nvidia.com/gpu=2, "
        "used: limits.cpu=1,requests.nvidia.com/gpu=0, limited: limits.cpu=2,requests.nvidia.com/gpu=1",
        "(CPU: 1.5 cores asked, 1 core of 2 cores in use; GPUs: 2 asked, 0 of 1 in use).",
    ),
    "QUOTA unset": (
        POD + "failed quota: torpor: must specify limits.cpu for: main; limits.memory for: main",
        "asks for what was not given: limits.cpu for: main",
    ),
    "LIMIT_RANGE": (
        POD + "maximum memory usage per Container is 4Gi, but limit is 5368709120",
        "memory: 5 GiB asked, at most 4 GiB allowed for one workspace or job.",
    ),
    "LIMIT_RANGE of two": (
        POD
        + "[maximum cpu usage per Container is 2, but limit is 3, maximum memory usage per Container is 4Gi, but limit is 5Gi]",
        "CPU: 3 cores asked, at most 2 cores allowed for one workspace or job.",
    ),
    "LIMIT_RANGE of a claim": (
        'persistentvolumeclaims "home-1" is forbidden: maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 10Gi',
        "storage: 10 GiB asked, at most 2 GiB allowed for one volume.",
    ),
    "POD_SECURITY": (
        POD + 'violates PodSecurity "restricted:v1.34": host namespaces (hostNetwork=true)',
        "level 'restricted' does not allow this: host namespaces (hostNetwork=true).",
    ),
    "POLICY": (
        POD + "ValidatingAdmissionPolicy 'torpor' with binding 'torpor' denied request: images must be named by digest",
        "A policy of the cluster does not allow this: images must be named by digest.",
    ),
    "POLICY not there": (
        POD
        + "ValidatingAdmissionPolicy 'torpor' with binding 'torpor' denied request: failed to configure binding: no params found",
        "The tenant's policy is not in its namespace yet.",
    ),
    "POLICY of a webhook": (
        'admission webhook "images.example.org" denied the request: the registry is not ours',
        "A policy of the cluster does not allow this: the registry is not ours.",
    ),
    "POLICY of a silent webhook": (
        'admission webhook "images.example.org" denied the request without explanation',
        "A policy of the cluster does not allow this: it gave no reason.",
    ),
    "NAMESPACE_ENDING": (
        POD + "unable to create new content in namespace torpor-a because it is being terminated",
        "The tenant's namespace is being removed.",
    ),
    "FORBIDDEN": (
        'pods is forbidden: User "system:serviceaccount:torpor:torpor-hub" cannot delete resource "pods" in API group ""',
        "The platform may not delete pods there.",
    ),
    "FORBIDDEN unknown": ("no", "The cluster refused this."),
}


@pytest.mark.parametrize("case", CASES)
def test_a_refusal_says_thing_limit_and_next_step(case: str) -> None:
    message, sentence = CASES[case]
    cause = explain(message)
    assert cause.reason == case.split(maxsplit=1)[0]
    assert sentence in cause.message
    assert cause.next_step.endswith(".")
    assert "2147483648" not in cause.message
