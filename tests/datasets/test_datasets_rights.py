"""Who may see, sample, read and register; and what may be registered at all."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.served_platform import Platform

# ada is a member of research and a viewer of operations, ben a member of operations, root an admin of both.


@pytest.fixture
def theirs(served: Platform) -> dict[str, Any]:
    """A dataset in the tenant operations, where ben is a member and ada a viewer."""
    name = f"d{uuid.uuid4().hex[:8]}"
    (served.data / name).mkdir()
    body = {"name": name, "tenant": "operations", "kind": "files", "spec": {"root": str(served.data / name)}}
    assert served.send("ben", "POST", "/sources", json=body).status_code == 201
    body = {"name": name, "tenant": "operations", "source": name, "path": "x", "description": "Their Things"}
    answer = served.send("ben", "POST", "/datasets", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_a_viewer_sees_and_may_not_read_or_learn_the_path(served: Platform, theirs: dict[str, Any]) -> None:
    path = f"/datasets/{theirs['id']}"
    assert served.send("ben", "GET", path).json()["status"]["path"].startswith(str(served.data))
    assert served.send("ada", "GET", path).json()["status"]["path"] == ""
    assert served.send("ada", "POST", f"{path}/reads", json={}).status_code == 403
    listed = served.send("ada", "GET", "/sources", params={"tenant": "operations"}).json()["items"]
    assert [item["spec"] for item in listed if item["name"] == theirs["name"]] == [{"kind": "files"}]


def test_a_viewer_and_a_reader_may_not_register(served: Platform, theirs: dict[str, Any]) -> None:
    body = {"name": "mine", "tenant": "operations", "source": theirs["name"], "path": "x"}
    assert served.send("ada", "POST", "/datasets", json=body).status_code == 403
    assert served.send("ben-reader", "POST", "/datasets", json=body).status_code == 403
    assert served.send("ada", "POST", f"/datasets/{theirs['id']}/imports").status_code == 403


def test_what_is_not_mine_to_see_answers_like_what_is_not_there(served: Platform) -> None:
    mine = served.register(f"d{uuid.uuid4().hex[:8]}", "x")
    for method, path in (
        ("GET", ""),
        ("GET", "/schema"),
        ("GET", "/sample"),
        ("POST", "/reads"),
        ("POST", "/imports"),
    ):
        seen = served.send("ben", method, f"/datasets/{mine['id']}{path}", json={} if path == "/reads" else None)
        absent = served.send("ben", method, f"/datasets/ds-absent{path}", json={} if path == "/reads" else None)
        assert seen.status_code == absent.status_code == 404
        assert seen.json()["detail"].replace(mine["id"], "X") == absent.json()["detail"].replace("ds-absent", "X")
    assert served.send("ben", "GET", f"/imports/{mine['status']['import']['id']}").status_code == 404
    body = {"name": "stolen", "tenant": "research", "source": "files", "path": "x"}
    assert served.send("ben", "POST", "/datasets", json=body).status_code == 404


def test_a_source_of_another_tenant_cannot_be_used(served: Platform, theirs: dict[str, Any]) -> None:
    body = {"name": "taken", "tenant": "research", "source": theirs["name"], "path": "x"}
    assert served.send("ada", "POST", "/datasets", json=body).status_code == 404


def test_only_its_owner_reads_a_read(served: Platform, theirs: dict[str, Any]) -> None:
    made = served.send("ben", "POST", f"/datasets/{theirs['id']}/reads", json={}).json()
    assert served.send("ada", "GET", f"/reads/{made['id']}/stream").status_code == 404
    assert served.send("root", "GET", f"/reads/{made['id']}/stream").status_code == 403


def test_browsing_finds_by_name_and_part_and_in_pages(served: Platform, theirs: dict[str, Any]) -> None:
    def names(user: str, **params: Any) -> list[str]:
        items = served.send(user, "GET", "/datasets", params=params).json()["items"]
        return [f"{item['tenant']}/{item['name']}" for item in items]

    whole = f"operations/{theirs['name']}"
    assert names("ben", name=whole) == names("ben", name=theirs["name"]) == [whole]
    assert names("ben", name=f"research/{theirs['name']}") == []
    assert whole in names("ada", search="their thing")
    assert whole not in names("ben", search="100%_")
    assert all(name.startswith("operations/") for name in names("ben", limit=200))
    served.register(f"p{uuid.uuid4().hex[:8]}", "x")
    first = served.send("root", "GET", "/datasets", params={"limit": 1}).json()
    second = served.send("root", "GET", "/datasets", params={"limit": 1, "cursor": first["next"]}).json()
    assert first["items"][0]["id"] != second["items"][0]["id"]


@pytest.mark.parametrize("root", ["/etc", "data", "", "{data}/../secrets", "{data}-2", 7])
def test_a_root_outside_of_the_allowed_folders_is_refused_and_the_allowed_are_named(
    root: Any, served: Platform
) -> None:
    spec = {"root": root.format(data=served.data) if isinstance(root, str) else root}
    answer = served.send("ada", "POST", "/sources", json={"name": "bad", "tenant": "research", "spec": spec})
    assert (answer.status_code, answer.json()["pointer"]) == (422, "/spec/root")
    assert str(served.data) in answer.json()["detail"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"path": "../x"}, "/path"),
        ({"path": "/etc"}, "/path"),
        ({"path": "a/../../b"}, "/path"),
        ({"name": "No Name"}, "/name"),
        ({"format": "csv"}, "/format"),
        ({"description": "x" * 5000}, "/description"),
    ],
)
def test_a_wrong_registration_says_which_field(change: dict[str, Any], pointer: str, served: Platform) -> None:
    body = {"name": "good", "tenant": "research", "source": "files", "path": "x", **change}
    answer = served.send("ada", "POST", "/datasets", json=body)
    assert (answer.status_code, answer.json()["pointer"]) == (422, pointer)


def test_a_name_is_taken_once_in_a_tenant_and_a_repeat_is_no_conflict(served: Platform) -> None:
    name, key = f"d{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    body = {"name": name, "tenant": "research", "source": "files", "path": "x"}
    made = [served.send("ada", "POST", "/datasets", json=body, headers={"Idempotency-Key": key}) for _ in range(2)]
    assert [answer.status_code for answer in made] == [201, 201]
    assert made[0].json()["id"] == made[1].json()["id"]
    other = {**body, "path": "y"}
    again = served.send("ada", "POST", "/datasets", json=other, headers={"Idempotency-Key": key})
    assert (again.status_code, again.json()["code"]) == (409, "idempotency_mismatch")
    taken = served.send("ada", "POST", "/datasets", json=body)
    assert (taken.status_code, taken.json()["pointer"]) == (409, "/name")


def test_people_may_not_claim_tasks(served: Platform) -> None:
    claim = served.send("root", "POST", "/import-claims", json={"importer": "x", "wait_s": 0})
    result = served.send("root", "PUT", "/import-claims/imp-1/result", json={"fence": 1})
    assert (claim.status_code, result.status_code) == (403, 403)


def test_a_link_out_of_the_root_is_refused_by_the_importer(served: Platform, tmp_path: Path) -> None:
    name = f"link{uuid.uuid4().hex[:8]}"
    (served.data / name).symlink_to(tmp_path)
    found = served.ended(served.register(name, name)["id"])["status"]
    assert (found["phase"], found["reason"]) == ("FAILED", "FORBIDDEN")
