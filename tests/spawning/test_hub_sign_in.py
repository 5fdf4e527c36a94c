from __future__ import annotations

import base64
import hashlib
import secrets
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.spawning.hub_site import Site


def test_the_right_password_leads_to_the_platforms_page(site: Site) -> None:
    browser = site.browser()
    answer = site.sign_in(browser, "ada", site.passwords["ada"])
    assert answer.status_code == 302
    assert answer.headers["location"] == f"{site.base_path}services/torpor/"


def test_a_wrong_password_is_refused_on_the_same_page(site: Site) -> None:
    answer = site.sign_in(site.browser(), "ada", "guess")
    assert answer.status_code == 403
    assert "Invalid username or password" in answer.text


def test_somebody_whom_the_platform_does_not_know_is_refused(site: Site) -> None:
    answer = site.sign_in(site.browser(), "mallory", "guess")
    assert answer.status_code == 403
    assert site.hub("GET", "users/mallory").status_code == 404


def test_while_the_platform_is_away_the_page_says_so(site: Site) -> None:
    site.api.away = True
    try:
        answer = site.sign_in(site.browser(), "ada", site.passwords["ada"])
    finally:
        site.api.away = False
    assert answer.status_code == 503
    assert "The database is being upgraded. Wait a minute." in answer.text
    assert "Traceback" not in answer.text


def test_an_admin_of_the_platform_is_one_of_the_hub(site: Site) -> None:
    page = site.signed_in("root").get("hub/admin")
    assert page.status_code == 200
    assert site.signed_in("ada").get("hub/admin").status_code == 403


def test_who_has_signed_in_gets_a_token_for_the_platform_without_another_question(site: Site) -> None:
    callback = f"{site.base_path}services/torpor/oauth_callback"
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    asked = {"client_id": "service-torpor", "redirect_uri": callback, "response_type": "code", "state": "s"}
    pkce = {"code_challenge": challenge, "code_challenge_method": "S256"}
    answer = site.signed_in("ada").get("hub/api/oauth2/authorize", params=asked | pkce)
    assert answer.status_code == 302
    back = urlsplit(answer.headers["location"])
    assert back.path == callback
    form = {
        "client_id": "service-torpor",
        "client_secret": site.secret("hub-service-token"),
        "grant_type": "authorization_code",
        "code": parse_qs(back.query)["code"][0],
        "code_verifier": verifier,
        "redirect_uri": callback,
    }
    token = httpx.post(f"{site.url}hub/api/oauth2/token", data=form).json()["access_token"]
    scopes = set(site.hub("GET", "user", token).json()["scopes"])
    assert {"access:services!service=torpor", "custom:torpor:read", "custom:torpor:write"} <= scopes
    assert site.hub("POST", "users/ada/servers/second", token).status_code == 403


def test_an_expired_token_of_the_hub_is_renewed(site: Site) -> None:
    site.api.tokens.clear()
    site.api.token_lifetime = timedelta(seconds=1)
    try:
        assert site.sign_in(site.browser(), "ada", site.passwords["ada"]).status_code == 302
        issued = len(site.api.tokens)
        assert site.sign_in(site.browser(), "ada", site.passwords["ada"]).status_code == 302
    finally:
        site.api.token_lifetime = timedelta(minutes=15)
    assert len(site.api.tokens) == issued + 1
