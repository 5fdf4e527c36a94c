"""What proves to the api that one of the platform's programs asks: a secret of its own, or what the composition puts in its place."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torpor_hub.errors import Forbidden


@dataclass(frozen=True)
class Proven:
    """A program that was recognised, and the node that it is tied to; empty where it is tied to none."""

    name: str
    node: str = ""


class Proofs(Protocol):
    """Recognises the platform's programs."""

    async def check(self, name: str, proof: str) -> Proven:
        """Return the program ``name`` when ``proof`` is its.

        Raises:
            Forbidden: when it is not.
            Unavailable: when nobody can tell now.
        """
        ...

    async def close(self) -> None:
        """Close connections, where it has some."""
        ...


@dataclass(frozen=True)
class SecretProofs:
    """Proofs by secrets that nobody else has, by the names of programs: what a supervisor makes and hands out."""

    secrets: Mapping[str, str]

    async def check(self, name: str, proof: str) -> Proven:
        """Return the program whose secret ``proof`` is.

        Raises:
            Forbidden: when it is not the secret of ``name``.
        """
        expected = self.secrets.get(name, "")
        if not expected or not hmac.compare_digest(expected.encode(), proof.encode()):
            raise Forbidden(
                f"The proof is not that of '{name}'.", next_step="Use the secret in the state folder's 'secrets'."
            )
        return Proven(name)

    async def close(self) -> None:
        """Do nothing: there are no connections."""
