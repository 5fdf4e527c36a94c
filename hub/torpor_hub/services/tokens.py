"""Tokens that the api signs and checks by itself: for attempts of jobs and for the platform's programs."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta

import jwt

from torpor_hub.domain.policy import Actor, ActorKind
from torpor_hub.errors import Forbidden, Unauthenticated

PREFIX = "torpor."
ALGORITHM = "HS256"
PROGRAM_S = 900
ATTEMPT_S = 8 * 24 * 3600


@dataclass(frozen=True)
class Signer:
    """Issues and checks tokens with one key. ``proofs`` maps programs to the secret that proves them."""

    key: str
    proofs: dict[str, str]

    def for_attempt(self, attempt: str, now: datetime) -> str:
        """Return a token for one attempt of a job (``job-…-a1``), good for eight days."""
        return self._sign(ActorKind.ATTEMPT, attempt, now + timedelta(seconds=ATTEMPT_S))

    def for_program(self, name: str, proof: str, now: datetime) -> tuple[str, datetime]:
        """Return a token for a program, and when it ends: 15 minutes from now.

        Raises:
            Forbidden: when the proof is not the program's.
        """
        expected = self.proofs.get(name, "")
        if not expected or not hmac.compare_digest(expected.encode(), proof.encode()):
            raise Forbidden(
                f"The proof is not that of '{name}'.", next_step="Use the secret in the state folder's 'secrets'."
            )
        expires_at = now + timedelta(seconds=PROGRAM_S)
        return self._sign(ActorKind.PROGRAM, name, expires_at), expires_at

    def actor(self, token: str) -> Actor:
        """Return whom the token stands for.

        Raises:
            Unauthenticated: when it is not ours, or has ended.
        """
        try:
            claims = jwt.decode(
                token.removeprefix(PREFIX),
                self.key,
                algorithms=[ALGORITHM],
                audience=[ActorKind.ATTEMPT.value, ActorKind.PROGRAM.value],
                options={"require": ["exp", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(
                "The token is not valid, or has ended.", next_step="Ask for a new token and repeat the request."
            ) from error
        return Actor(ActorKind(claims["aud"]), claims["sub"], can_write=True)

    def _sign(self, kind: ActorKind, subject: str, expires_at: datetime) -> str:
        claims = {"aud": kind.value, "sub": subject, "exp": expires_at}
        return PREFIX + jwt.encode(claims, self.key, algorithm=ALGORITHM)
