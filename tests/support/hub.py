"""Signing in and asking the hub for a token, as a person does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

UNAVAILABLE = 503
SIGNED_IN_WITHIN_S = 60.0


@contextmanager
def signed_in(url: str, user: str, password: str) -> Iterator[httpx.Client]:
    """Give a client with the cookies of the user's browser, below the public address."""
    with httpx.Client(base_url=url, follow_redirects=True, timeout=30) as client:
        client.get("hub/login")
        form = {"username": user, "password": password, "_xsrf": client.cookies.get("_xsrf") or ""}
        deadline = time.monotonic() + SIGNED_IN_WITHIN_S
        # On a busy machine the page says that the platform does not answer, and to try again.
        while (answer := _sign_in(client, url, form)).status_code == UNAVAILABLE and time.monotonic() < deadline:
            time.sleep(0.5)
        answer.raise_for_status()
        yield client


def _sign_in(client: httpx.Client, url: str, form: dict[str, str]) -> httpx.Response:
    return client.post(f"hub/login?next={urlsplit(url).path}hub/token", data=form)


def token(url: str, user: str, password: str) -> str:
    """Return a hub token of the user, made as a person makes one: sign in, then ask the hub."""
    with signed_in(url, user, password) as client:
        headers = {"X-XSRFToken": client.cookies.get("_xsrf", path=f"{urlsplit(url).path}hub/") or ""}
        answer = client.post(f"hub/api/users/{user}/tokens", json={"note": "test"}, headers=headers)
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["token"])
