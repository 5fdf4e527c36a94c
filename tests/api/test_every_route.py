"""Every route asks who may do it: strangers, viewers' tokens and people in programs' places are turned away."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from sqlalchemy import select
from starlette.requests import Request

from tests.support.installation import seeded, settings_in
from torpor_hub.api.app import create_app
from torpor_hub.api.context import Parts
from torpor_hub.api.identity import Identity
from torpor_hub.errors import Unauthenticated
from torpor_hub.services.proofs import SecretProofs
from torpor_hub.services.tokens import PREFIX, Signer
from torpor_hub.settings import Settings
from torpor_hub.stores.base import Store
from torpor_hub.stores.blobs import Blobs
from torpor_hub.stores.changes import ChangeFeed
from torpor_hub.stores.tables import Import

OPEN = {("GET", "/health"), ("POST", "/component-tokens")}
LISTS = {"/workspaces", "/tenants", "/profiles", "/jobs", "/sources", "/datasets", "/me", "/events", "/job-options"}
# What ada makes below; ben belongs to another tenant, so for him none of it exists.
STRANGER = "ben"
EVENTS = "/events"


class Names:
    """Recognises tokens that are just names: the hub's part is tested with the hub."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    async def of(self, request: Request) -> Identity:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token.startswith(PREFIX):
            actor = self._signer.actor(token)
            return Identity(actor.name, True, actor)
        if not token:
            raise Unauthenticated("Nobody is signed in.")
        return Identity(token.removesuffix("?"), not token.endswith("?"))


class Site:
    """An api over a store, with things of ada's in it."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.signer = Signer("k" * 32)
        blobs = Blobs(settings.blobs)
        people, proofs = Names(self.signer), SecretProofs({"hub": "hub-proof"})
        self.parts = Parts(settings, store, blobs, self.signer, people, ChangeFeed(store), proofs)  # type: ignore[arg-type]
        self.app = create_app(self.parts)
        self.client = TestClient(self.app, raise_server_exceptions=False)
        self.path = settings.api_path
        self.ids: dict[str, str] = {}

    def call(self, method: str, path: str, who: str = "", **more: Any) -> Any:
        headers = more.pop("headers", {}) | ({"Authorization": f"Bearer {who}"} if who else {})
        return self.client.request(method, self.path + path, headers=headers, **more)

    def fill(self) -> None:
        data = self.parts.settings.data_dir / "things"
        data.mkdir(parents=True)
        made = self.call("POST", "/workspaces", "ada", json={"name": "first", "tenant": "research"})
        assert made.status_code == 201, made.text
        self.ids["workspace"] = made.json()["id"]
        spec = {
            "name": "count",
            "kind": "command",
            "tenant": "research",
            "environment": "profile",
            "amount": {"cpu_milli": 100, "memory_bytes": 256 * 1024**2},
            "code": {"type": "command", "argv": ["true"]},
        }
        form = {"spec": (None, io.BytesIO(json.dumps(spec).encode()), "application/json")}
        self.ids["job"] = self._made("/jobs", files=form)
        body = {"name": "things", "tenant": "research", "kind": "files", "spec": {"root": str(data)}}
        self.ids["source"] = self._made("/sources", json=body)
        body = {"name": "things", "tenant": "research", "source": "things", "path": "a"}
        self.ids["dataset"] = self._made("/datasets", json=body)
        with self.parts.store.read() as tx:
            self.ids["import"] = str(tx.session.scalar(select(Import.id)))

    def _made(self, path: str, **more: Any) -> str:
        answer = self.call("POST", path, "ada", **more)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def filled(self, path: str) -> str:
        """Return the path of a route with ada's things in it."""
        kind = path.split("/")[1].rstrip("s")
        values = {
            "key": self.ids.get(kind, "x"),
            "operation": "op-x",
            "task": self.ids["import"],
            "number": "1",
            "n": "1",
            "attempt": "1",
            "rank": "0",
            "offset": "0",
            "start": "0",
            "name": "0",
        }
        return re.sub(r"{(\w+)(:\w+)?}", lambda found: values.get(found[1], self.ids.get(kind, "x")), path)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("api")
    file = folder / "torpor.sqlite"
    file.write_bytes(migrated_sqlite.read_bytes())
    store, settings = Store(f"sqlite:///{file}"), settings_in(folder)
    seeded(store, settings)
    site = Site(store, settings)
    site.fill()
    yield site
    store.close()


def routes() -> list[tuple[str, str]]:
    """Return method and path of every route of the api."""
    settings = settings_in(Path("/nowhere"))
    app = create_app(Parts(settings, None, None, None, None, None))  # type: ignore[arg-type]
    return sorted(
        (method, path.removeprefix(settings.api_path))
        for path, route in _flat(app.routes)
        for method in (route.methods or ())
    )


def _flat(found: Any, prefix: str = "") -> Iterator[tuple[str, APIRoute]]:
    for route in found:
        if isinstance(route, APIRoute):
            yield prefix + route.path, route
        elif hasattr(route, "original_router"):
            yield from _flat(route.original_router.routes, prefix + route.include_context.prefix)


ROUTES = routes()
CLOSED = [route for route in ROUTES if route not in OPEN]
OF_PROGRAMS = ("/sign-ins", "/workspace-starts", "/capture-claims", "/import-claims")
OF_ATTEMPTS = "/attempts/"
OF_PEOPLE = [
    route
    for route in CLOSED
    if not route[1].startswith(OF_PROGRAMS) and OF_ATTEMPTS not in route[1] and "{" in route[1]
]
OF_OTHERS = [route for route in CLOSED if route[1].startswith(OF_PROGRAMS) or OF_ATTEMPTS in route[1]]
BODIES: dict[str, Any] = {
    "/sign-ins": {"name": "ada", "password": "x"},
    "/workspace-starts": {"user": "ada", "server": "first"},
    "/capture-claims": {"agent": "a", "wait_s": 0},
    "/import-claims": {"importer": "i", "wait_s": 0},
    "/capture-claims/{operation}/progress": {"fence": 1, "step": "UPLOAD"},
    "/capture-claims/{operation}/result": {"fence": 1, "digest": "d", "layers": []},
    "/capture-claims/{operation}/thawed": {"fence": 1},
    "/capture-claims/{operation}/failure": {"fence": 1, "code": "c", "message": "m"},
    "/import-claims/{task}/progress": {"fence": 1, "stage": "", "stages": []},
    "/import-claims/{task}/failure": {"fence": 1, "code": "TIMEOUT", "stage": "", "message": "", "next_step": ""},
    "/import-claims/{task}/result": {"fence": 1, "schema": None, "sample": None, "stats": None, "chunks": 0},
}


def body_of(method: str, path: str) -> dict[str, Any]:
    if path in BODIES:
        return {"json": BODIES[path]}
    if method == "PATCH":
        return {"json": {"spec": {"desired": "cancelled" if "job" in path or "import" in path else "asleep"}}}
    if path.endswith("/exit"):
        return {"json": {"rank": 0, "exit_code": 0}}
    if path.endswith("/state"):
        return {"json": {"state": "running"}}
    if path.endswith(("/reads", "/imports")):
        return {"json": {}}
    headers = {"Torpor-SHA256": hashlib.sha256(b"x").hexdigest(), "Torpor-Fence": "1"}
    return {"content": b"x", "headers": headers} if method == "PUT" else {}


def test_the_walk_finds_the_routes_of_every_kind() -> None:
    kinds = {path.split("/")[1] for _, path in ROUTES}
    assert kinds >= {"workspaces", "jobs", "datasets", "imports", "sources", "sign-ins", "capture-claims", "events"}


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_nobody_gets_in_without_credentials(site: Site, method: str, path: str) -> None:
    assert site.call(method, site.filled(path), **body_of(method, path)).status_code == 401


@pytest.mark.parametrize(("method", "path"), OF_PEOPLE)
def test_a_stranger_gets_the_answer_for_what_does_not_exist(site: Site, method: str, path: str) -> None:
    answer = site.call(method, site.filled(path), STRANGER, **body_of(method, path))
    assert answer.status_code == 404, answer.text
    assert answer.json()["code"] == "not_found"


@pytest.mark.parametrize(("method", "path"), OF_OTHERS)
def test_a_person_is_refused_what_only_programs_and_attempts_do(site: Site, method: str, path: str) -> None:
    answer = site.call(method, site.filled(path), "ada", **body_of(method, path))
    assert answer.status_code in (403, 404), answer.text


@pytest.mark.parametrize("path", sorted(LISTS - {EVENTS}))
def test_a_list_shows_a_stranger_nothing_of_others(site: Site, path: str) -> None:
    answer = site.call("GET", path, STRANGER)
    assert answer.status_code == 200
    assert not [one for one in site.ids.values() if one in answer.text]


@pytest.mark.parametrize("route", [route for route in OF_PEOPLE if route[0] != "GET"], ids=str)
def test_credentials_that_may_only_read_change_nothing(site: Site, route: tuple[str, str]) -> None:
    method, path = route
    answer = site.call(method, site.filled(path), "ada?", **body_of(method, path))
    reads = path.endswith("/reads")
    assert answer.status_code == (201 if reads else 403), answer.text


def test_an_attempts_token_is_good_for_its_own_attempt_only(site: Site) -> None:
    other = site.signer.for_attempt("job-other-a1", site.parts.store.clock())
    for method, path in OF_OTHERS:
        if OF_ATTEMPTS in path:
            answer = site.call(method, site.filled(path), other, **body_of(method, path))
            assert answer.status_code in (403, 404), (path, answer.text)


def test_a_programs_token_does_only_that_programs_work(site: Site) -> None:
    hub = site.call("POST", "/component-tokens", json={"component": "hub", "proof": "hub-proof"}).json()["token"]
    assert site.call("POST", "/capture-claims", hub, json=BODIES["/capture-claims"]).status_code == 403
    assert site.call("GET", "/datasets/" + site.ids["dataset"], hub).status_code in (403, 404)
    wrong = site.call("POST", "/component-tokens", json={"component": "hub", "proof": "guess"})
    assert wrong.status_code == 403


def test_an_unknown_wire_version_is_refused_with_the_remedy(site: Site) -> None:
    headers = {"Authorization": "Bearer ada", "Torpor-Wire": "99"}
    answer = site.client.get(f"{site.path}/me", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "unsupported_wire")


def test_an_answer_that_is_known_already_is_not_sent_again(site: Site) -> None:
    first = site.call("GET", "/workspaces/" + site.ids["workspace"], "ada")
    headers = {"Authorization": "Bearer ada", "If-None-Match": first.headers["etag"]}
    assert site.client.get(f"{site.path}/workspaces/{site.ids['workspace']}", headers=headers).status_code == 304


def test_a_change_of_something_that_changed_meanwhile_is_refused(site: Site) -> None:
    headers = {"Authorization": "Bearer ada", "If-Match": '"999"'}
    url = f"{site.path}/workspaces/{site.ids['workspace']}"
    answer = site.client.patch(url, json={"spec": {"desired": "running"}}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (412, "version_conflict")
