"""The pod that a grant becomes: whole, and checked before anything is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torpor_hub.cluster.kinds import Json
from torpor_hub.cluster.shape import shape_of
from torpor_hub.domain.workspaces import WorkspaceRun
from torpor_hub.podspecs import policy
from torpor_hub.podspecs.workspace import workspace_pod
from torpor_hub.settings import Settings
from torpor_hub.spawning.pods import FINGERPRINT, fingerprint
from torpor_hub.spawning.refusals import refused


def pod_of(
    run: WorkspaceRun,
    settings: Settings,
    *,
    args: Sequence[str],
    environment: Mapping[str, str],
    base_url: str,
    token: str,
) -> Json:
    """Return the whole pod of a granted run, whose server is given ``token``.

    Raises:
        SpawnException: when the pod is not what the tenant's policy allows.
        ClusterError: when an id cannot name an object.
    """
    shape = shape_of(settings)
    marks = {FINGERPRINT: fingerprint(token)}
    pod = workspace_pod(run, shape, args=args, environment=environment, base_url=base_url, annotations=marks)
    wrong = policy.violations(pod, policy.policy_of(run, shape, settings.registry.prefix))
    if wrong:
        raise refused(
            "The platform's own rules do not allow this workspace's pod.",
            "Tell a platform admin: what the platform was about to make is at fault, not what you asked for.",
            reason="policy",
            status=500,
            log="\n".join(wrong),
        )
    return pod
