"""Signing in to the pages by the hub's OAuth (code flow with PKCE, RFC 7636); nothing is kept in this process."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from urllib.parse import urlencode

import httpx
from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from torpor_hub.api.context import Context, Parts
from torpor_hub.api.identity import TOKEN_COOKIE, XSRF_COOKIE
from torpor_hub.errors import Forbidden, Unauthenticated, Unavailable

router = APIRouter()
CLIENT_ID = "service-torpor"
STATE_COOKIE = "torpor-state"
STATE_S = 600
TOKEN_S = 14 * 24 * 3600
SECRET_BYTES = 32


@dataclass
class SignInNeeded(Exception):
    """Nobody is signed in; the browser goes to the hub and comes back to ``page``."""

    page: str


async def signed_in(request: Request) -> Context:
    """Return the context of a page's request.

    Raises:
        SignInNeeded: when nobody is signed in, or the sign-in has ended.
    """
    parts: Parts = request.app.state.parts
    try:
        identity = await parts.identities.of(request)
    except Unauthenticated as error:
        page = request.url.path if request.method == "GET" else parts.settings.service_path
        raise SignInNeeded(page) from error
    return Context(parts, identity, request, request.state.request_id)


async def to_hub(request: Request, needed: Exception) -> Response:
    """Return the redirect to the hub's sign-in; state and verifier travel in a sealed cookie."""
    parts: Parts = request.app.state.parts
    page = needed.page if isinstance(needed, SignInNeeded) else parts.settings.service_path
    if request.headers.get("hx-request"):
        return Response(status_code=401, headers={"HX-Refresh": "true"})
    state, verifier = secrets.token_urlsafe(SECRET_BYTES), secrets.token_urlsafe(SECRET_BYTES)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    query = {
        "client_id": CLIENT_ID,
        "redirect_uri": _callback(parts),
        "response_type": "code",
        "state": state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    answer = RedirectResponse(f"{parts.settings.hub_path}api/oauth2/authorize?{urlencode(query)}", 302)
    kept = {"state": state, "verifier": verifier, "page": page, "until": time.time() + STATE_S}
    _set(answer, parts, STATE_COOKIE, parts.identities.seal_cookie(json.dumps(kept)), STATE_S)
    return answer


@router.get("/oauth_callback")
async def callback(request: Request, code: str = "", state: str = "") -> Response:
    """Take the hub's code, keep the token in a sealed cookie, and go on to the page that was asked for."""
    parts: Parts = request.app.state.parts
    kept = _kept(parts, request.cookies.get(STATE_COOKIE, ""))
    if not code or kept is None or not hmac.compare_digest(str(kept["state"]), state):
        raise Forbidden("The sign-in could not be finished.", next_step="Open the page again and sign in anew.")
    token = await _token(parts, code, str(kept["verifier"]))
    await parts.identities.of_token(token)
    page = str(kept["page"])
    target = page if page.startswith(parts.settings.service_path) else parts.settings.service_path
    answer = RedirectResponse(target, 302)
    _set(answer, parts, TOKEN_COOKIE, parts.identities.seal_cookie(token), TOKEN_S)
    _set(answer, parts, XSRF_COOKIE, secrets.token_urlsafe(SECRET_BYTES), TOKEN_S)
    answer.delete_cookie(STATE_COOKIE, path=parts.settings.service_path)
    return answer


@router.get("/sign-out")
async def sign_out(request: Request) -> Response:
    """Forget the sign-in here, then at the hub."""
    parts: Parts = request.app.state.parts
    answer = RedirectResponse(f"{parts.settings.hub_path}logout", 302)
    for cookie in (TOKEN_COOKIE, XSRF_COOKIE):
        answer.delete_cookie(cookie, path=parts.settings.service_path)
    return answer


async def _token(parts: Parts, code: str, verifier: str) -> str:
    form = {
        "client_id": CLIENT_ID,
        "client_secret": parts.settings.secret("hub-service-token"),
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": verifier,
        "redirect_uri": _callback(parts),
    }
    try:
        async with httpx.AsyncClient(timeout=10) as client:
            answer = await client.post(f"{parts.settings.hub_api_url}/oauth2/token", data=form)
    except httpx.HTTPError as error:
        raise Unavailable("The hub does not answer.", next_step="Try again in a few seconds.") from error
    if answer.status_code != 200:
        raise Forbidden("The hub did not accept the sign-in.", next_step="Open the page again and sign in anew.")
    return str(answer.json()["access_token"])


def _kept(parts: Parts, cookie: str) -> dict[str, object] | None:
    try:
        kept: dict[str, object] = json.loads(parts.identities.open_cookie(cookie))
    except (Unauthenticated, ValueError):
        return None
    return kept if float(str(kept.get("until", 0))) > time.time() else None


def _callback(parts: Parts) -> str:
    return f"{parts.settings.service_path}oauth_callback"


def _set(answer: Response, parts: Parts, name: str, value: str, lifetime_s: int) -> None:
    answer.set_cookie(
        name,
        value,
        max_age=lifetime_s,
        path=parts.settings.service_path,
        httponly=True,
        samesite="lax",
        secure=parts.settings.public_url.startswith("https:"),
    )
