"""Which of a workspace's pods a start takes up, and what the others mean for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from torpor_hub.cluster.kinds import Json
from torpor_hub.podspecs import names
from torpor_hub.podspecs.diagnose import Surroundings, diagnose_pod
from torpor_hub.spawning import hindrances, pods
from torpor_hub.spawning.hindrances import Hindrance

TokenOf = Callable[[str], str]


def adoptable(found: Iterable[Json], token_of: TokenOf, grant_id: str) -> Json | None:
    """Return the pod whose server runs or comes up and lets people in by a token of ours; None where there is none.

    ``token_of`` gives the token of a grant. A pod of another grant that cannot come up is not taken up: it belongs to a start
    that failed. That of this grant is, and tells what is wrong.
    """
    for pod in found:
        if _lives(pod) and _is_ours(pod, token_of):
            same = pods.label(pod, names.GRANT) == grant_id
            if same or diagnose_pod(pod, Surroundings(now_s=time.time())) is None:
                return pod
    return None


def why_not(found: Iterable[Json], token_of: TokenOf) -> Hindrance:
    """Return why a start has to wait while there are these pods, none of which is adoptable."""
    if any(_lives(pod) and not _is_ours(pod, token_of) for pod in found):
        return hindrances.of_another_key()
    return hindrances.not_gone_yet()


def _lives(pod: Json) -> bool:
    return not (pods.is_over(pod) or pods.is_leaving(pod))


def _is_ours(pod: Json, token_of: TokenOf) -> bool:
    return pods.shows(pod, token_of(pods.label(pod, names.GRANT)))
