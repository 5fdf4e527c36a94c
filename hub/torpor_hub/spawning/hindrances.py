"""What keeps a workspace's pod from being made, how long that may pass by itself, and what people are told."""

from __future__ import annotations

import time
from dataclasses import dataclass

from jupyterhub.spawner import SpawnException

from torpor_hub.domain.diagnose import Cause
from torpor_hub.errors import ClusterError, ClusterUnavailable, Denied, ObjectExists, ObjectMissing
from torpor_hub.spawning.platform import CHECK_AGAIN
from torpor_hub.spawning.refusals import refused

AWAY_S = 60.0
# The controller repairs what somebody removed from a tenant's namespace within ten seconds.
REPAIR_S = 15.0
# A quota counts what has just ended for a moment longer.
RECOUNT_S = 5.0
PASSES_S = {"QUOTA": RECOUNT_S, "FORBIDDEN": REPAIR_S}
STATUS = 409


@dataclass(frozen=True)
class Hindrance:
    """Why there is no pod yet; ``passes_s`` is how long to try again before the start is ended."""

    cause: Cause
    passes_s: float = 0.0

    def refusal(self) -> SpawnException:
        """Return what ends the start."""
        return refused(self.cause.message, self.cause.next_step, reason=self.cause.reason.lower(), status=STATUS)


class Standing:
    """How long the same thing has stood in the way."""

    def __init__(self) -> None:
        self._reason = ""
        self._since = 0.0

    def for_s(self, reason: str) -> float:
        """Return since when ``reason``, and no other one, was given here, in seconds."""
        if reason != self._reason:
            self._reason, self._since = reason, time.monotonic()
        return time.monotonic() - self._since


def of_error(error: ClusterError) -> Hindrance:
    """Return what an answer of the API server, or none, means for a start."""
    match error:
        case Denied():
            cause = Cause(error.reason, error.message, error.next_step)
            return Hindrance(cause, PASSES_S.get(error.reason, 0.0))
        case ClusterUnavailable():
            return Hindrance(Cause("CLUSTER_AWAY", "The cluster does not answer.", CHECK_AGAIN), AWAY_S)
        case ObjectMissing():
            return Hindrance(
                Cause("NO_NAMESPACE", "The tenant has no place on the cluster yet.", CHECK_AGAIN), REPAIR_S
            )
        case ObjectExists():
            return Hindrance(Cause("NAME_TAKEN", "Another pod has the workspace's name.", CHECK_AGAIN), AWAY_S)
    return Hindrance(Cause("NOT_TAKEN", "The cluster did not take the workspace's pod.", CHECK_AGAIN))


def not_gone_yet() -> Hindrance:
    """Return the hindrance of an earlier pod that is on its way out, or that the controller has yet to remove."""
    return Hindrance(
        Cause(
            "NOT_GONE_YET",
            "The workspace's last pod has not gone yet.",
            "Try again in a minute; if it stays so, tell a platform admin.",
        ),
        AWAY_S,
    )


def of_another_key() -> Hindrance:
    """Return the hindrance of a pod that runs with a token which this hub cannot derive."""
    return Hindrance(
        Cause(
            "ANOTHER_KEY",
            "The workspace runs, but it was started with another key of the hub, so that nobody can be let in.",
            "Ask a platform admin to restore the secret 'hub-server-token-key', or to end the workspace.",
        )
    )
