"""Tokens that the api signs and checks by itself: for attempts of jobs and for the platform's programs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import jwt

from torpor_hub.domain.policy import Actor, ActorKind
from torpor_hub.errors import Unauthenticated
from torpor_hub.services.proofs import Proven

PREFIX = "torpor."
ALGORITHM = "HS256"
PROGRAM_S = 900
ATTEMPT_S = 8 * 24 * 3600
SIGNED = (ActorKind.ATTEMPT, ActorKind.READER, ActorKind.PROGRAM)


@dataclass(frozen=True)
class Signer:
    """Issues and checks tokens with one key."""

    key: str

    def for_attempt(self, attempt: str, now: datetime) -> str:
        """Return a token for one attempt of a job (``job-…-a1``), good for eight days."""
        return self._sign(ActorKind.ATTEMPT, attempt, now + timedelta(seconds=ATTEMPT_S))

    def for_reader(self, attempt: str, now: datetime) -> str:
        """Return a token for the code of an attempt: its job's owner's rights without writing, while the attempt lives."""
        return self._sign(ActorKind.READER, attempt, now + timedelta(seconds=ATTEMPT_S))

    def for_program(self, program: Proven, now: datetime) -> tuple[str, datetime]:
        """Return a token for a program that proved itself, and when it ends: 15 minutes from now."""
        expires_at = now + timedelta(seconds=PROGRAM_S)
        return self._sign(ActorKind.PROGRAM, program.name, expires_at, node=program.node), expires_at

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
                audience=[kind.value for kind in SIGNED],
                options={"require": ["exp", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(
                "The token is not valid, or has ended.", next_step="Ask for a new token and repeat the request."
            ) from error
        kind = ActorKind(claims["aud"])
        return Actor(kind, claims["sub"], can_write=kind is not ActorKind.READER, node=claims.get("node", ""))

    def _sign(self, kind: ActorKind, subject: str, expires_at: datetime, *, node: str = "") -> str:
        claims = {"aud": kind.value, "sub": subject, "exp": expires_at, **({"node": node} if node else {})}
        return PREFIX + jwt.encode(claims, self.key, algorithm=ALGORITHM)
