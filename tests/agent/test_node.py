"""A node without a cluster: leases, the second thaw path, how containers are found, what an agent leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from torpor_hub.agent import containers, rights, thaw
from torpor_hub.agent import node as nodes
from torpor_hub.agent.containers import Container, find
from torpor_hub.agent.ground import Claim
from torpor_hub.agent.leases import Leases, boot_time
from torpor_hub.agent.node import NodeGround
from torpor_hub.agent.tasks import Tasks
from torpor_hub.agent.work import settle
from torpor_hub.errors import CaptureFailed, PlaceError, StartupError
from torpor_hub.oci.overlay_marks import Upper
from torpor_hub.processes.cgroups import Cgroups

POD = "0b4ea4a2-pod"


@dataclass
class Node:
    """A node whose freezer are plain files: what is written there is what the kernel would be told."""

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "own").write_text("")
        (self.folder / "cgroup" / "freezer" / "kubepods").mkdir(parents=True)
        self.leases = Leases(self.folder / "leases")

    @property
    def cgroups(self) -> Cgroups:
        return Cgroups(self.folder / "cgroup", self.folder / "own")

    def container(self, *, frozen: bool = False) -> str:
        container = secrets.token_hex(32)
        group = self.folder / "cgroup" / "freezer" / "kubepods" / "pod" / container
        group.mkdir(parents=True)
        (group / "freezer.state").write_text("FROZEN" if frozen else "THAWED")
        return container

    def is_frozen(self, container: str) -> bool:
        return container in self.cgroups.frozen()

    def vanish(self, container: str) -> None:
        group = self.cgroups.find(container)
        assert group is not None
        (group / "freezer.state").unlink()
        group.rmdir()

    def ground(self) -> NodeGround:
        return NodeGround(self.cgroups, self.leases)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def claim(container: str, **more: Any) -> Claim:
    return Claim(
        {"operation": "op-1", "fence": 3, "handle": POD, "container": container, "thaw_after_s": 60, **more},
    )


def test_what_is_past_its_deadline_or_has_no_lease_is_thawed_and_the_rest_is_not(node: Node) -> None:
    due, unknown, held, unreadable = (node.container(frozen=True) for _ in range(4))
    node.leases.write(due, "op-1", 1, for_s=-1)
    node.leases.write(held, "op-2", 1, for_s=60)
    (node.folder / "leases" / f"{unreadable}.json").write_text("{")
    thaw.look(node.cgroups, node.leases)
    assert [node.is_frozen(container) for container in (due, unknown, unreadable, held)] == [False, False, False, True]
    assert [lease.container for lease in node.leases.all()] == [held]


def test_a_lease_of_an_earlier_boot_holds_nothing(node: Node) -> None:
    container = node.container(frozen=True)
    lease = node.leases.write(container, "op-1", 1, for_s=60)
    node.leases._put(replace(lease, boot="another"))
    thaw.look(node.cgroups, node.leases)
    assert not node.is_frozen(container)


def test_another_installation_s_lease_is_its_own_until_it_ends(node: Node) -> None:
    theirs, late = node.container(frozen=True), node.container(frozen=True)
    others = Leases(node.folder / "leases", "another")
    others.write(theirs, "op-1", 1, for_s=60)
    others.write(late, "op-2", 1, for_s=-1)
    asyncio.run(_settled(node))
    assert thaw.look(node.cgroups, node.leases, only_promised=True) == 0
    assert (node.is_frozen(theirs), node.is_frozen(late)) == (True, False)


async def _settled(node: Node) -> None:
    tasks = Tasks("http://api/v1", lambda: "proof", transport=httpx.MockTransport(lambda _request: httpx.Response(500)))
    await settle(tasks, node.ground())
    await tasks.close()


def test_a_lease_of_a_newer_version_is_understood(node: Node) -> None:
    container = node.container(frozen=True)
    node.leases.write(container, "op-1", 1, for_s=60)
    file = node.folder / "leases" / f"{container}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "of tomorrow": 1}))
    thaw.look(node.cgroups, node.leases)
    assert node.is_frozen(container)


def test_a_lease_before_its_freeze_is_left_alone_and_one_of_a_container_that_is_gone_is_removed(node: Node) -> None:
    coming, gone = node.container(), node.container()
    for container in (coming, gone):
        node.leases.write(container, "op-1", 1, for_s=60)
    node.vanish(gone)
    thaw.look(node.cgroups, node.leases)
    assert [lease.container for lease in node.leases.all()] == [coming]


def test_the_second_path_thaws_all_when_it_ends_but_for_what_is_being_removed(node: Node) -> None:
    held, removed = node.container(frozen=True), node.container(frozen=True)
    node.leases.write(held, "op-1", 1, for_s=60)
    node.leases.promise(node.leases.write(removed, "op-2", 1, for_s=60))
    ending = threading.Event()
    ending.set()
    watching = threading.Thread(target=thaw.keep_watch, args=(node.cgroups, node.leases, ending))
    watching.start()
    while node.is_frozen(held):
        continue
    assert watching.is_alive()
    assert node.is_frozen(removed)
    node.vanish(removed)
    watching.join()
    assert node.leases.all() == []


def test_the_program_that_thaws_needs_no_installed_package(node: Node) -> None:
    container = node.container(frozen=True)
    arguments = ["--leases", str(node.folder / "leases"), "--cgroups", str(node.folder / "cgroup")]
    hub = Path(thaw.__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(hub)!r}); from torpor_hub.programs.thaw import main; main()"
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", code, *arguments]) as program:
        while node.is_frozen(container):
            assert program.poll() is None
        program.terminate()
    assert program.returncode == 0


def test_a_freeze_is_under_a_lease_and_a_thaw_ends_it(node: Node) -> None:
    container, ground = node.container(), node.ground()

    async def work() -> None:
        held = claim(f"containerd://{container}")
        await ground.freeze(held)
        assert node.is_frozen(container)
        (lease,) = node.leases.all()
        assert (lease.operation, lease.fence, lease.promised) == ("op-1", 3, False)
        assert 0 < lease.deadline - boot_time() <= 60
        assert 0 < await ground.promise(held) <= 60
        assert node.leases.all()[0].promised
        await ground.thaw(held)
        assert (node.is_frozen(container), node.leases.all()) == (False, [])
        await ground.thaw(held)

    asyncio.run(work())


def test_what_was_thawed_meanwhile_cannot_be_promised(node: Node) -> None:
    container, ground = node.container(), node.ground()

    async def work() -> None:
        held = claim(container)
        await ground.freeze(held)
        thaw.look(node.cgroups, Leases(node.folder / "of another"))
        with pytest.raises(PlaceError, match="was thawed before it was saved"):
            await ground.promise(held)
        await ground.freeze(held)
        node.leases.write(container, "op-1", 4, for_s=60)
        with pytest.raises(PlaceError):
            await ground.promise(held)

    asyncio.run(work())


def test_a_container_that_is_gone_is_not_frozen(node: Node) -> None:
    with pytest.raises(PlaceError, match="is gone"):
        asyncio.run(node.ground().freeze(claim("0" * 64)))
    assert node.leases.all() == []


@pytest.mark.parametrize(
    ("answer", "thawed"),
    [
        (httpx.Response(200, json={"thaw": True}), True),
        (httpx.Response(200, json={"thaw": False}), False),
        (httpx.Response(409, json={"detail": "Another agent has it."}), False),
        (httpx.Response(503), False),
    ],
    ids=["thaw", "removing", "taken over", "away"],
)
def test_an_agent_that_ends_thaws_what_it_froze_and_asks_about_what_was_promised(
    node: Node, answer: httpx.Response, thawed: bool
) -> None:
    held, promised = node.container(frozen=True), node.container(frozen=True)
    node.leases.write(held, "op-1", 1, for_s=60)
    node.leases.promise(node.leases.write(promised, "op-2", 7, for_s=60))
    asked = []

    def api(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("component-tokens"):
            return httpx.Response(200, json={"token": "t"})
        asked.append((request.url.path, json.loads(request.content)))
        return answer

    async def end() -> None:
        tasks = Tasks("http://api/v1", lambda: "proof", transport=httpx.MockTransport(api))
        await settle(tasks, node.ground())
        await tasks.close()

    asyncio.run(end())
    assert asked == [("/v1/capture-claims/op-2/thawed", {"fence": 7})]
    assert (node.is_frozen(held), node.is_frozen(promised)) == (False, not thawed)


def mountinfo(folder: Path, container: str, options: str, kind: str = "overlay", notes: Any = None) -> Path:
    bundle = folder / "task dir" / container
    bundle.mkdir(parents=True)
    noted = {
        "annotations": notes or {containers.POD: POD, containers.IMAGE: "registry:5000/torpor/x@sha256:" + "1" * 64}
    }
    (bundle / "config.json").write_text(json.dumps(noted))
    place = str(bundle / "rootfs").replace(" ", "\\040")
    file = folder / "mountinfo"
    file.write_text(
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        f"52 27 0:41 / {place} rw,relatime shared:26 master:1 - {kind} overlay rw,{options}\n"
    )
    return file


def test_a_container_is_found_with_its_changes_its_layers_and_its_image(tmp_path: Path) -> None:
    upper = tmp_path / "snap, shots" / "9" / "fs"
    upper.mkdir(parents=True)
    escaped = str(upper).replace(",", "\\054").replace(" ", "\\040")
    options = f"lowerdir=8/fs:7/fs:/absolute\\134:odd/fs,upperdir={escaped},workdir=/w,uuid=on"
    found = find("c" * 64, POD, mountinfo(tmp_path, "c" * 64, options))
    snapshots = upper.parent.parent
    assert (found.upper.path, found.upper.user_marks) == (upper, False)
    assert found.upper.lowers == (snapshots / "8/fs", snapshots / "7/fs", Path("/absolute:odd/fs"))
    assert found.image == "registry:5000/torpor/x@sha256:" + "1" * 64


def test_layers_that_a_newer_kernel_lists_one_by_one_are_all_found(tmp_path: Path) -> None:
    upper = tmp_path / "9" / "fs"
    upper.mkdir(parents=True)
    options = f"lowerdir+=/a,lowerdir+=/b,upperdir={upper},workdir=/w,userxattr"
    found = find("c" * 64, POD, mountinfo(tmp_path, "c" * 64, options))
    assert (found.upper.lowers, found.upper.user_marks) == ((Path("/a"), Path("/b")), True)


@pytest.mark.parametrize(
    ("container", "kind", "options", "notes", "message"),
    [
        ("d" * 64, "overlay", "lowerdir=/a,upperdir={upper}", None, "does not run on this node"),
        ("c" * 64, "erofs", "lowerdir=/a", None, "of the kind erofs"),
        ("c" * 64, "overlay", "lowerdir=/a", None, "cannot be written to"),
        ("c" * 64, "overlay", "lowerdir=/a,upperdir=/nowhere/fs", None, "mounted into it at the same path"),
        ("c" * 64, "overlay", "lowerdir=/a,upperdir={upper}", {containers.POD: "another"}, "is of the pod another"),
    ],
)
def test_a_container_that_cannot_be_saved_is_refused_with_the_reason(
    tmp_path: Path, container: str, kind: str, options: str, notes: Any, message: str
) -> None:
    (tmp_path / "fs").mkdir()
    mounts = mountinfo(tmp_path, "c" * 64, options.format(upper=tmp_path / "fs"), kind, notes)
    with pytest.raises(PlaceError, match=message):
        find(container, POD, mounts)


@pytest.mark.parametrize("image", ["", "registry:5000/torpor/x:latest", "elsewhere/torpor/x@sha256:" + "1" * 64])
def test_a_container_of_an_image_that_is_not_in_the_registry_is_not_saved(
    node: Node, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node.folder / "fs").mkdir()
    notes = {containers.POD: POD, containers.IMAGE: image}
    mounts = mountinfo(node.folder, "c" * 64, f"lowerdir=/a,upperdir={node.folder / 'fs'}", notes=notes)
    monkeypatch.setattr(containers, "find", lambda container, pod: find(container, pod, mounts))
    registry = {"host": "registry:5000", "insecure": True, "username": "", "password": ""}
    with pytest.raises(CaptureFailed, match="is not named by a digest in the registry registry:5000"):
        asyncio.run(node.ground().locate(claim("c" * 64, registry=registry)))


def test_what_was_saved_of_a_container_is_remembered_for_that_container_alone(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "REMEMBERED", 2)
    image = "registry:5000/torpor/x@sha256:" + "1" * 64
    upper = Upper(node.folder)
    monkeypatch.setattr(containers, "find", lambda container, _pod: Container(container, upper, image))
    registry = {"host": "registry:5000", "insecure": True, "username": "", "password": ""}
    ground = node.ground()

    def memory(container: str) -> object:
        told = {"registry": registry, "repository": "r", "tag": "t", "parent_digest": None, "annotations": {}}
        capture: Any = asyncio.run(ground.locate(claim(container, **told))).capture
        return capture._memory

    first, second = memory("a"), memory("b")
    assert first is not second
    assert memory("a") is first
    memory("c")
    assert memory("a") is first, "it was saved last but one"
    assert memory("b") is not second, "it was saved longest ago, and there is no end of containers"
    ground.close()


def test_a_missing_capability_is_named_before_anything_is_read_wrongly(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the agent runs as root")
    status = tmp_path / "status"
    for held, named in (
        (1 << 2, "lacks SYS_ADMIN"),
        (1 << 21, "lacks DAC_READ_SEARCH"),
        (0, "lacks DAC_READ_SEARCH and"),
    ):
        status.write_text(f"Name:\tx\nCapEff:\t{held:016x}\n")
        with pytest.raises(StartupError, match=named):
            rights.check(tmp_path, status)
    status.write_text(f"CapEff:\t{1 << 2 | 1 << 21:016x}\n")
    rights.check(tmp_path, status)
    assert list(tmp_path.iterdir()) == [status]
