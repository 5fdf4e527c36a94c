"""What the client makes of an API server that hangs, breaks off or answers nonsense. The server is a fake: its faults are real."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.cluster.objects import until
from torpor_hub.cluster import kinds
from torpor_hub.cluster.access import Access
from torpor_hub.cluster.client import Cluster
from torpor_hub.cluster.watch import Watch
from torpor_hub.errors import ClusterError, ClusterUnavailable, Denied, ObjectConflict, VersionExpired

Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


def http(code: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (code, len(body), body)


def status(code: int, reason: str = "", message: str = "no") -> bytes:
    return json.dumps({"kind": "Status", "code": code, "reason": reason, "message": message}).encode()


def listing(version: str, *names: str) -> bytes:
    items = [{"metadata": {"name": name, "namespace": "a", "resourceVersion": version}} for name in names]
    return http(200, json.dumps({"metadata": {"resourceVersion": version}, "items": items}).encode())


def line(change: str, thing: Any) -> bytes:
    return json.dumps({"type": change, "object": thing}).encode() + b"\n"


def pod(name: str, version: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "a", "resourceVersion": version}}


STREAM = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


@asynccontextmanager
async def served(answer: Answer) -> AsyncIterator[Access]:
    """Serve ``answer``, which gets each request's target and writes what it likes; then the connection is closed."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        try:
            await answer(head.split(" ")[1], writer)
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Access(f"http://127.0.0.1:{port}", ssl.create_default_context())
    finally:
        server.close()


def saying(content: bytes) -> Answer:
    async def answer(target: str, writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()

    return answer


async def hanging(target: str, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def hanging_in_the_body(target: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    await asyncio.Event().wait()


async def dribbling(target: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(100000):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


UNKNOWN = {
    "hangs": hanging,
    "hangs in the middle of its answer": hanging_in_the_body,
    "dribbles": dribbling,
    "breaks off": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
    "closes at once": saying(b""),
    "is no API server": saying(http(200, b"<html>")),
    "gives a list for an object": saying(http(200, b"[]")),
    "has no room": saying(http(429, status(429))),
    "fails": saying(http(500, status(500, "InternalError", "etcdserver: request timed out"))),
    "is behind a proxy that fails": saying(http(503, b"<html>no healthy upstream")),
    "does not know the token any more": saying(http(401, status(401, "Unauthorized"))),
}


@pytest.mark.parametrize("fault", UNKNOWN)
def test_a_server_that_does_not_tell_leaves_everything_unknown(fault: str) -> None:
    async def run() -> None:
        async with served(UNKNOWN[fault]) as access, Cluster(access, deadline_s=0.3) as cluster:
            with pytest.raises(ClusterUnavailable):
                await cluster.list(kinds.POD, "a")

    asyncio.run(run())


NO = {
    "another version": (http(409, status(409, "Conflict")), ObjectConflict),
    "a right": (http(403, status(403, "Forbidden", 'User "hub" cannot list resource "pods" in API group ""')), Denied),
    "an age": (http(410, status(410, "Expired")), VersionExpired),
    "a field": (http(422, status(422, "Invalid", "spec.x: Invalid value")), ClusterError),
}


@pytest.mark.parametrize("what", NO)
def test_a_server_that_says_no_is_believed(what: str) -> None:
    content, kind = NO[what]

    async def run() -> None:
        async with served(saying(content)) as access, Cluster(access) as cluster:
            with pytest.raises(ClusterError) as caught:
                await cluster.list(kinds.POD, "a")
            assert type(caught.value) is kind

    asyncio.run(run())


class Script:
    """A server whose lists and watches answer in turn; the last answer of each kind is given for ever."""

    def __init__(self, lists: list[bytes], watches: list[bytes]) -> None:
        self.lists, self.watches = lists, watches
        self.versions: list[str] = []
        self.listed = 0

    async def __call__(self, target: str, writer: asyncio.StreamWriter) -> None:
        query = parse_qs(urlsplit(target).query)
        if "watch" not in query:
            self.listed += 1
            writer.write(self.lists.pop(0) if len(self.lists) > 1 else self.lists[0])
            return
        self.versions.append(query["resourceVersion"][0])
        if self.watches:
            writer.write(self.watches.pop(0))
            return
        writer.write(STREAM)
        await writer.drain()
        await asyncio.Event().wait()


async def follow(script: Script, wanted: set[str]) -> Watch:
    """Follow until exactly the ``wanted`` pods are known to be there; return the watch, closed."""
    async with served(script) as access, Cluster(access) as cluster, Watch(cluster, kinds.POD) as pods:
        pods.add("a")

        def there() -> bool:
            snapshot = pods.snapshot()
            return snapshot.current and {name for _, name in snapshot.objects} == wanted and not script.watches

        await until(pods, there)
        return pods


def test_a_watch_that_breaks_off_goes_on_at_its_last_version_without_a_list() -> None:
    cut = STREAM + line("ADDED", pod("two", "7")) + b'{"type": "ADD'
    script = Script([listing("5", "one")], [cut, STREAM + line("DELETED", pod("one", "8"))])
    asyncio.run(follow(script, {"two"}))
    assert script.listed == 1
    assert script.versions[:2] == ["5", "7"]


def test_bookmarks_move_the_version_from_which_a_watch_goes_on() -> None:
    bookmark = STREAM + line("BOOKMARK", {"metadata": {"resourceVersion": "90"}})
    script = Script([listing("5", "one")], [bookmark, STREAM + line("ADDED", pod("two", "91"))])
    asyncio.run(follow(script, {"one", "two"}))
    assert script.listed == 1
    assert script.versions[:2] == ["5", "90"]


@pytest.mark.parametrize("gone", [http(410, status(410, "Expired")), STREAM + line("ERROR", json.loads(status(410)))])
def test_a_forgotten_version_leads_to_a_new_list_which_forgets_what_is_gone(gone: bytes) -> None:
    script = Script([listing("5", "one", "old"), listing("50", "one")], [gone])
    asyncio.run(follow(script, {"one"}))
    assert script.listed == 2
    assert script.versions[0] == "5"


def test_while_nothing_is_known_the_last_objects_stay_and_nobody_takes_absence_for_an_end() -> None:
    async def run() -> None:
        script = Script([listing("5", "one")], [])
        async with (
            served(script) as access,
            Cluster(access, deadline_s=0.3) as cluster,
            Watch(cluster, kinds.POD, within_s=0.2) as pods,
        ):
            pods.add("a")
            assert await pods.known("a", within_s=30)
            script.watches = [http(500, status(500))] * 1000
            await until(pods, lambda: not pods.snapshot().current)
            snapshot = pods.snapshot()
            assert snapshot.unknown == {"a"}
            assert ("a", "one") in snapshot.objects
            assert not snapshot.knows("a")
            script.watches = []
            await until(pods, lambda: pods.snapshot().current)

    asyncio.run(run())


def test_an_object_that_nobody_expected_ends_no_follower_for_ever(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torpor_hub.cluster.watch.LONGEST_WAIT_S", 0.05)
    script = Script([listing("5", "one")], [STREAM + line("ADDED", {"metadata": {}})])
    asyncio.run(follow(script, {"one"}))
    assert script.listed == 2
    assert "the follower died" in caplog.text


def test_a_token_is_read_anew_at_each_request_because_it_is_renewed(tmp_path: Any) -> None:
    seen: list[str] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.extend(part for part in head.splitlines() if part.startswith("Authorization"))
        writer.write(listing("1"))
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        file = tmp_path / "token"
        async with Cluster(Access(address, ssl.create_default_context(), token_file=file)) as cluster:
            for token in ("first", "second"):
                file.write_text(token + "\n")
                await cluster.list(kinds.POD, "a")
            file.unlink()
            with pytest.raises(ClusterUnavailable, match="cannot be read"):
                await cluster.list(kinds.POD, "a")
        server.close()

    asyncio.run(run())
    assert seen == ["Authorization: Bearer first", "Authorization: Bearer second"]
