"""The platform's api, as the hub asks it: with the token of a component, a deadline for each call, errors as sentences."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx

from torpor_hub import errors
from torpor_hub.domain.diagnose import Cause
from torpor_hub.domain.workspaces import WorkspaceRun
from torpor_hub.settings import Settings

COMPONENT = "hub"
PROOF = "hub-proof"
CALL_S = 10.0
RENEW_BEFORE_S = 60.0
CHECK_AGAIN = "Try again in a moment; if it stays so, tell an administrator."
T = TypeVar("T")
BY_STATUS: Mapping[int, type[errors.UserError]] = {
    kind.status: kind
    for kind in (
        errors.Unauthenticated,
        errors.Forbidden,
        errors.NotFound,
        errors.Conflict,
        errors.VersionConflict,
        errors.TooLarge,
        errors.InvalidRequest,
        errors.TooManyAttempts,
    )
}


@dataclass(frozen=True)
class SignedIn:
    """A person whom the platform has recognised."""

    name: str
    admin: bool


@dataclass(frozen=True)
class Waiting:
    """A start that is not granted yet: ``progress`` from 0 to 100, ``message`` a sentence."""

    progress: int
    message: str


@dataclass(frozen=True)
class Grant:
    """The permission to start ``run`` now; ``notice`` says what a wake restored and what it did not."""

    id: str
    run: WorkspaceRun
    notice: str


@dataclass(frozen=True)
class WorkspaceState:
    """What a wait for a sleep, or a start that failed, has to know of a workspace."""

    phase: str
    desired: str
    operating: bool
    reason: str = ""
    message: str = ""
    next_step: str = ""


@dataclass
class _Token:
    text: str = ""
    expires_at: datetime = field(default_factory=lambda: datetime.fromtimestamp(0, UTC))

    def fresh(self) -> bool:
        return (self.expires_at - datetime.now(UTC)).total_seconds() > RENEW_BEFORE_S


class Platform:
    """A client of the platform's api. One serves the whole hub.

    Every method raises ``errors.UserError``: the refusal of the api with its sentence and next step, and ``Unavailable`` where
    no answer came in time or the answer cannot be understood.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # Without the environment's proxies: the api is reached directly.
        self._client = httpx.AsyncClient(base_url=settings.api_url, trust_env=False, timeout=CALL_S)
        self._token = _Token()
        self._renewing = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def sign_in(self, name: str, password: str) -> SignedIn:
        """Return the person whose name and password these are."""
        answer = await self._call("POST", "/sign-ins", {"name": name, "password": password})
        return _understood(lambda: SignedIn(str(answer["name"]), answer["admin"] is True))

    async def start_workspace(
        self, user: str, server: str, options: Mapping[str, str], hindrance: Cause | None = None
    ) -> Waiting | Grant:
        """Ask for the start of a workspace, or again for one that was asked for; ``hindrance`` is what it waits for."""
        body: dict[str, Any] = {"user": user, "server": server, "options": dict(options)}
        if hindrance is not None:
            body["hindrance"] = asdict(hindrance)
        answer = await self._call("POST", "/workspace-starts", body)
        return _understood(lambda: _start(answer))

    async def give_up_start(self, user: str, server: str, cause: Cause) -> None:
        """Record that the start of a workspace has ended without a server, and why."""
        body = {"user": user, "server": server, "hindrance": asdict(cause) | {"final": True}}
        await self._call("POST", "/workspace-starts", body)

    async def wish_asleep(self, workspace_id: str) -> None:
        """Record that the workspace is to be put to sleep."""
        await self._call("PATCH", f"/workspaces/{workspace_id}", {"spec": {"desired": "asleep"}})

    async def workspace(self, workspace_id: str) -> WorkspaceState:
        """Return how the workspace stands now."""
        answer = await self._call("GET", f"/workspaces/{workspace_id}")
        return _understood(lambda: _state(answer))

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        response = await self._send(method, path, body, await self._fresh_token())
        if response.status_code == httpx.codes.UNAUTHORIZED:
            # The api may have changed its signing key, or its clock differs from ours.
            self._token = _Token()
            response = await self._send(method, path, body, await self._fresh_token())
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise errors.Unavailable("The platform does not recognise the hub.", next_step=CHECK_AGAIN)
        return _content(response)

    async def _fresh_token(self) -> str:
        async with self._renewing:
            if not self._token.fresh():
                self._token = await self._ask_token()
            return self._token.text

    async def _ask_token(self) -> _Token:
        body = {"component": COMPONENT, "proof": self.settings.secret(PROOF)}
        response = await self._send("POST", "/component-tokens", body, "")
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise errors.Unavailable("The platform does not recognise the hub.", next_step=CHECK_AGAIN)
        answer = _content(response)
        return _understood(lambda: _Token(str(answer["token"]), datetime.fromisoformat(answer["expires_at"])))

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None, token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            # httpx bounds each phase of a request; this bounds the whole.
            async with asyncio.timeout(CALL_S):
                return await self._client.request(method, path.lstrip("/"), json=body, headers=headers)
        except (httpx.HTTPError, TimeoutError) as error:
            raise errors.Unavailable("The platform does not answer.", next_step=CHECK_AGAIN) from error


def _content(response: httpx.Response) -> Mapping[str, Any]:
    """Return the answer's JSON object; raise what the answer refuses with."""
    try:
        content = response.json()
    except ValueError:
        content = None
    if response.is_success and isinstance(content, dict):
        return content
    raise _refusal(response.status_code, content if isinstance(content, dict) else {})


def _refusal(status: int, problem: Mapping[str, Any]) -> errors.UserError:
    """Return a problem (RFC 9457) as the error that the api raised."""
    kind = BY_STATUS.get(status, errors.Unavailable)
    sentence = str(problem.get("detail") or f"The platform answered with an error ({status}).")
    error = kind(sentence, next_step=str(problem.get("next_step") or ("" if problem else CHECK_AGAIN)))
    error.code = str(problem.get("code") or error.code)
    return error


def _start(answer: Mapping[str, Any]) -> Waiting | Grant:
    if "grant" not in answer:
        return Waiting(int(answer.get("progress") or 0), str(answer.get("message") or ""))
    grant = answer["grant"]
    return Grant(str(grant["id"]), WorkspaceRun.from_json(grant["run"]), str(grant.get("notice") or ""))


def _state(answer: Mapping[str, Any]) -> WorkspaceState:
    status = answer["status"]
    return WorkspaceState(
        phase=str(status["phase"]),
        desired=str(answer["spec"]["desired"]),
        operating=status.get("operation") is not None,
        reason=str(status.get("reason") or ""),
        message=str(status.get("message") or ""),
        next_step=str(status.get("next_step") or ""),
    )


def _understood(read: Callable[[], T]) -> T:
    """Return what ``read`` makes of an answer."""
    try:
        return read()
    except (KeyError, TypeError, ValueError) as error:
        raise errors.Unavailable(
            f"The platform's answer cannot be understood: {error!r}.", next_step="Tell an administrator."
        ) from error
