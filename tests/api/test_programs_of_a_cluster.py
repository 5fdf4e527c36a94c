"""How the api recognises programs on a cluster, and to what an agent is held that is tied to a node."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from tests.support.installation import seeded, settings_in
from torpor_hub.api.app import create_app
from torpor_hub.api.context import Parts
from torpor_hub.api.identity import Identity
from torpor_hub.domain.workspaces import Phase, SleepStep
from torpor_hub.errors import ClusterUnavailable, Forbidden, Unavailable
from torpor_hub.programs.identity import ReviewedProofs
from torpor_hub.services import operations, people, workspaces
from torpor_hub.services.proofs import Proven
from torpor_hub.services.tokens import Signer
from torpor_hub.stores.base import Store
from torpor_hub.stores.blobs import Blobs
from torpor_hub.stores.changes import ChangeFeed
from torpor_hub.stores.tables import Operation

ACCOUNTS = {
    "hub": "system:serviceaccount:torpor:torpor-hub",
    "agent": "system:serviceaccount:torpor-agent:torpor-agent",
}
EXTRA = {"authentication.kubernetes.io/node-name": ["node-1"]}


class Reviewer:
    """Answers reviews of tokens as it was told to."""

    def __init__(self, status: dict[str, Any] | None) -> None:
        self.status = status
        self.asked: list[dict[str, Any]] = []

    async def create(self, thing: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        self.asked.append(thing["spec"])
        if self.status is None:
            raise ClusterUnavailable("nobody answers")
        return {**thing, "status": self.status}


def valid(user: str, **more: Any) -> dict[str, Any]:
    return {"authenticated": True, "audiences": ["torpor"], "user": {"username": user, **more}}


def check(status: dict[str, Any] | None, name: str) -> Proven:
    return asyncio.run(ReviewedProofs(Reviewer(status), ACCOUNTS).check(name, "a token"))  # type: ignore[arg-type]


def test_a_programs_token_is_good_for_that_program() -> None:
    reviewer = Reviewer(valid(ACCOUNTS["hub"]))
    proofs = ReviewedProofs(reviewer, ACCOUNTS)  # type: ignore[arg-type]
    assert asyncio.run(proofs.check("hub", "a token")) == Proven("hub")
    assert reviewer.asked == [{"token": "a token", "audiences": ["torpor"]}]


def test_an_agents_token_ties_it_to_its_node() -> None:
    assert check(valid(ACCOUNTS["agent"], extra=EXTRA), "agent") == Proven("agent", "node-1")


@pytest.mark.parametrize(
    ("status", "name"),
    [
        pytest.param(valid(ACCOUNTS["hub"]), "agent", id="another program's token"),
        pytest.param(valid("system:serviceaccount:research:torpor-hub"), "hub", id="the same name elsewhere"),
        pytest.param(valid(ACCOUNTS["hub"]) | {"audiences": ["other"]}, "hub", id="made for somebody else"),
        pytest.param({"authenticated": False, "error": "expired"}, "hub", id="a token that has ended"),
        pytest.param(valid("ada"), "nobody", id="a program that there is not"),
        pytest.param(valid(ACCOUNTS["agent"]), "agent", id="an agent without a node"),
    ],
)
def test_everything_else_is_refused(status: dict[str, Any], name: str) -> None:
    with pytest.raises(Forbidden):
        check(status, name)


def test_a_cluster_that_does_not_answer_refuses_nobody() -> None:
    with pytest.raises(Unavailable):
        check(None, "hub")


class Signed:
    """Recognises the platform's own tokens."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    async def of(self, request: Any) -> Identity:
        actor = self._signer.actor(request.headers["authorization"].removeprefix("Bearer "))
        return Identity(actor.name, actor.can_write, actor)


class Site:
    """An api with one workspace that runs on node-1 and is to be saved."""

    def __init__(self, store: Store, folder: Path) -> None:
        settings = settings_in(folder)
        seeded(store, settings)
        self.store, self.signer, self.path = store, Signer("k" * 32), settings.api_path
        people_known = Signed(self.signer)
        feed = ChangeFeed(store)
        self.client = TestClient(
            create_app(Parts(settings, store, Blobs(settings.blobs), self.signer, people_known, feed))
        )  # type: ignore[arg-type]
        with store.begin("test") as tx:
            ada = people.person(tx, "ada", can_write=True)
            row = workspaces.create(tx, ada, name="first", tenant="research", profile=None)
            row.phase, row.node, row.handle = Phase.RUNNING, "node-1", "uid"
            operations.begin(tx, row, "checkpoint", SleepStep.QUIESCE, deadline_s=600, handle="uid", thaw_after_s=600)

    def call(self, tied_to: str, method: str, path: str, **body: Any) -> Any:
        token, _ = self.signer.for_program(Proven("agent", tied_to), self.store.clock())
        return self.client.request(method, self.path + path, json=body, headers={"Authorization": f"Bearer {token}"})

    def operation(self) -> Operation:
        with self.store.read() as tx:
            found = tx.session.scalars(select(Operation)).one()
            tx.session.expunge(found)
            return found


@pytest.fixture
def site(store: Store, tmp_path: Path) -> Iterator[Site]:
    yield Site(store, tmp_path)


def test_an_agent_claims_for_its_own_node_whatever_it_says(site: Site) -> None:
    waits = {"agent": "a", "wait_s": 0}
    assert site.call("node-2", "POST", "/capture-claims", **waits, node="node-1").status_code == 204
    assert site.call("node-1", "POST", "/capture-claims", **waits, node="node-2").status_code == 200
    assert site.operation().node == "node-1"


def test_an_agent_reports_on_captures_of_its_own_node_alone(site: Site) -> None:
    claim = site.call("node-1", "POST", "/capture-claims", agent="a", wait_s=0).json()
    path, fence = f"/capture-claims/{claim['operation']}", claim["fence"]
    bodies = {
        "progress": {"step": "UPLOAD"},
        "result": {"digest": f"sha256:{'0' * 64}", "layers": []},
        "failure": {"code": "c", "message": "m"},
        "thawed": {},
    }
    for kind, body in bodies.items():
        assert site.call("node-2", "PUT", f"{path}/{kind}", fence=fence, **body).status_code == 403, kind
    assert site.operation().ended_at is None
    assert site.call("node-1", "PUT", f"{path}/progress", fence=fence, step="UPLOAD").status_code == 200
