"""Freezing by cgroup, on mounts of the test's own of both versions, with real processes."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from torpor_hub.errors import PlaceError
from torpor_hub.processes import cgroups
from torpor_hub.processes.cgroups import Cgroups

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="cgroups are mounted and made by root")
OPTIONS = {1: ("cgroup", "freezer"), 2: ("cgroup2", "rw")}


@dataclass
class Node:
    """A part of a hierarchy that stands for a node."""

    mount: Path
    top: Path
    own: Path
    version: int

    @property
    def cgroups(self) -> Cgroups:
        return Cgroups(self.mount, self.own)

    def container(self, name: str | None = None) -> tuple[str, Path]:
        """Make the cgroup of a container."""
        container = secrets.token_hex(32)
        group = self.top / "kubepods" / "burstable" / "pod1" / (name or "{}").format(container)
        group.mkdir(parents=True)
        return container, group


@pytest.fixture(params=[1, 2])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    kind, options = OPTIONS[request.param]
    mount = tmp_path / "cgroup"
    hierarchy = mount / "freezer" if request.param == 1 else mount
    hierarchy.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", kind, "-o", options, "none", hierarchy], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        # Where all must hold, one of the two versions may not go untested without a word.
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"no hierarchy of version {request.param} can be mounted here: {mounted.stderr.strip()}")
    top = hierarchy / f"test-{secrets.token_hex(4)}"
    top.mkdir()
    own = tmp_path / "own"
    place = f"/{top.name}/kubepods/besteffort/pod2/agent"
    own.write_text(f"4:memory:/elsewhere\n3:freezer:{place}\n" if request.param == 1 else f"0::{place}\n")
    try:
        yield Node(mount, top, own, request.param)
    finally:
        for folder, _names, _files in os.walk(top, topdown=False):
            remove(Path(folder))
        subprocess.run(["umount", hierarchy], check=True)


def remove(group: Path) -> None:
    """Remove a cgroup, which is busy for a moment after its last process."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            group.rmdir()
            return


@contextlib.contextmanager
def working(group: Path, folder: Path) -> Iterator[Path]:
    """A process in the cgroup that writes on and on; its file."""
    output = folder / "output"
    output.touch()
    process = subprocess.Popen(["sh", "-c", f"while :; do echo x >> {output}; done"])
    try:
        (group / "cgroup.procs").write_text(str(process.pid))
        yield output
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def grows(file: Path) -> bool:
    before, deadline = file.stat().st_size, time.monotonic() + 10
    while time.monotonic() < deadline:
        if file.stat().st_size > before:
            return True
    return False


def test_a_frozen_container_stands_still_until_it_is_thawed(node: Node, tmp_path: Path) -> None:
    container, group = node.container()
    held = node.cgroups
    with working(group, tmp_path) as output:
        assert grows(output)
        found = held.find(container)
        assert found == group
        held.freeze(found)
        size = output.stat().st_size
        assert held.is_frozen(found)
        assert held.frozen() == {container: group}
        held.freeze(found)
        assert output.stat().st_size == size
        held.thaw(found)
        assert grows(output)
        assert held.frozen() == {}
        held.thaw(found)


def test_containers_are_found_as_both_drivers_of_the_kubelet_name_them(node: Node) -> None:
    container, group = node.container("cri-containerd-{}.scope")
    plain, _ = node.container()
    assert node.cgroups.find(container) == group
    assert node.cgroups.find(plain) is not None
    assert node.cgroups.find("0" * 64) is None


def test_what_belongs_to_another_node_of_the_machine_is_left_alone(node: Node) -> None:
    other = node.top / "kubepods-of-another"
    other.mkdir()
    container = secrets.token_hex(32)
    (other / container).mkdir()
    node.container()
    assert node.cgroups.find(container) is None
    node.own.write_text("0::/\n")
    assert Cgroups(node.mount, node.own).find(container) == other / container


def test_a_container_that_is_gone_cannot_be_frozen_and_need_not_be_thawed(node: Node) -> None:
    container, group = node.container()
    held = node.cgroups
    remove(group)
    with pytest.raises(PlaceError, match="cannot be frozen"):
        held.freeze(group)
    held.thaw(group)
    assert held.find(container) is None


def test_a_container_that_does_not_come_to_rest_is_thawed_again(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, group = node.container()
    monkeypatch.setattr(cgroups, "FREEZE_WITHIN_S", 0.0)
    monkeypatch.setattr(Cgroups, "is_frozen", lambda _self, _group: False)
    with working(group, tmp_path) as output:
        with pytest.raises(PlaceError, match="did not come to rest"):
            node.cgroups.freeze(group)
        assert grows(output)
