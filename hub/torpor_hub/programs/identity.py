"""How the api recognises the platform's programs: by secrets on one machine, by reviewed tokens on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torpor_hub.cluster import access, kinds
from torpor_hub.cluster.client import Cluster
from torpor_hub.errors import ClusterError, Forbidden, Unavailable
from torpor_hub.services.proofs import Proofs, Proven, SecretProofs
from torpor_hub.settings import Settings

PROGRAMS = ("hub", "importer", "agent", "demo")
AUDIENCE = "torpor"
NODE = "authentication.kubernetes.io/node-name"


def proofs_of(settings: Settings) -> Proofs:
    """Return what recognises programs in this installation.

    Raises:
        StartupError: when a secret is missing, or no cluster is named.
    """
    if settings.mode == "process":
        return SecretProofs({name: settings.secret(f"{name}-proof") for name in PROGRAMS})
    cluster = settings.cluster
    places = {name: cluster.agent_namespace if name == "agent" else cluster.namespace for name in PROGRAMS}
    accounts = {name: f"system:serviceaccount:{place}:{cluster.fullname}-{name}" for name, place in places.items()}
    return ReviewedProofs(Cluster(access.find(relax_x509=cluster.relax_x509)), accounts)


class ReviewedProofs:
    """Proofs by tokens of service accounts, made for this platform alone, which the cluster reviews.

    ``accounts`` maps programs to the users that their service accounts are. An agent is tied to the node of its pod.
    """

    def __init__(self, cluster: Cluster, accounts: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._accounts = accounts

    async def check(self, name: str, proof: str) -> Proven:
        """Return the program ``name`` when the cluster says that ``proof`` is its account's token.

        Raises:
            Forbidden: when it is not, or is an agent's without a node.
            Unavailable: when the cluster does not answer.
        """
        user = await self._reviewed(proof)
        if user is None or user.get("username") != self._accounts.get(name):
            raise Forbidden(
                f"The token is not that of '{name}'.",
                next_step=f"Send a token of its service account with the audience '{AUDIENCE}'.",
            )
        nodes = (user.get("extra") or {}).get(NODE) or [""]
        if name == "agent" and not nodes[0]:
            raise Forbidden(
                "The agent's token names no node.", next_step="Use a token that is projected into the agent's pod."
            )
        return Proven(name, nodes[0] if name == "agent" else "")

    async def close(self) -> None:
        """Close the connections to the cluster."""
        await self._cluster.aclose()

    async def _reviewed(self, token: str) -> dict[str, Any] | None:
        """Return the user that a token stands for; None where it stands for none here."""
        kind, spec = kinds.TOKEN_REVIEW, {"token": token, "audiences": [AUDIENCE]}
        review = {"apiVersion": kind.api, "kind": kind.name, "metadata": {"name": ""}, "spec": spec}
        try:
            status = (await self._cluster.create(review))["status"]
        except ClusterError as error:
            raise Unavailable(
                "The cluster does not answer, so no program can be recognised.", next_step="Try again in a few seconds."
            ) from error
        valid = status.get("authenticated") and AUDIENCE in (status.get("audiences") or ())
        return dict(status["user"]) if valid else None
