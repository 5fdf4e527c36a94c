"""Freezing containers by their cgroup, on hierarchies of version 1 (``freezer.state``) and 2 (``cgroup.freeze``).

Standard library only. Sources: Linux, Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst and cgroup-v2.rst.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from torpor_hub.errors import PlaceError

FREEZE_WITHIN_S = 10.0
POLL_S = 0.001
PODS = "kubepods"
CONTAINER = re.compile(r"(?:.*-)?([0-9a-f]{64})(?:\.scope)?")
"""The folder of a container, as the kubelet's two drivers name it: by the id, or ``cri-containerd-<id>.scope``."""


class Cgroups:
    """The containers of this node in the hierarchy that is mounted at ``mount``, ``/sys/fs/cgroup`` of the node.

    ``own`` says in which part of the hierarchy this program runs: what is not below the same ``kubepods`` belongs to another
    node of the same machine.
    """

    def __init__(self, mount: Path, own: Path = Path("/proc/self/cgroup")) -> None:
        self._is_v2 = not (mount / "freezer").is_dir()
        self._root = _node_part(mount if self._is_v2 else mount / "freezer", own, self._is_v2)

    def find(self, container: str) -> Path | None:
        """Return the folder of a container; None when it has none any more."""
        return next((group for known, group in self._containers() if known == container), None)

    def frozen(self) -> dict[str, Path]:
        """Return the folders of all containers that are frozen, or being frozen, by container."""
        return {container: group for container, group in self._containers() if self._is_asked(group)}

    def is_frozen(self, group: Path) -> bool:
        """Return whether every process of the container stands still."""
        return self._state(group) == "frozen"

    def freeze(self, group: Path) -> None:
        """Return when every process of the container stands still.

        Raises:
            PlaceError: when they do not, or when the container is gone; nothing stays frozen then.
        """
        deadline = time.monotonic() + FREEZE_WITHIN_S
        try:
            self._ask(group, True)
            while not self.is_frozen(group):
                if time.monotonic() > deadline:
                    raise PlaceError(f"The container's processes did not come to rest within {FREEZE_WITHIN_S:.0f} s.")
                time.sleep(POLL_S)
                self._ask(group, True)
        except OSError as error:
            raise PlaceError(f"The container cannot be frozen: {error}.") from error
        except PlaceError:
            self.thaw(group)
            raise

    def thaw(self, group: Path) -> None:
        """Let every process of the container go on; a container that is gone is success.

        Raises:
            PlaceError: when the system refuses.
        """
        try:
            self._ask(group, False)
        except FileNotFoundError:
            return
        except OSError as error:
            if group.exists():
                raise PlaceError(f"The container cannot be thawed: {error}.") from error

    def _containers(self) -> Iterator[tuple[str, Path]]:
        for folder, names, _files in os.walk(self._root):
            for name in list(names):
                if found := CONTAINER.fullmatch(name):
                    yield found[1], Path(folder) / name
                    names.remove(name)

    def _ask(self, group: Path, frozen: bool) -> None:
        if self._is_v2:
            _write(group / "cgroup.freeze", b"1" if frozen else b"0")
        else:
            _write(group / "freezer.state", b"FROZEN" if frozen else b"THAWED")

    def _is_asked(self, group: Path) -> bool:
        try:
            if self._is_v2:
                return (group / "cgroup.freeze").read_bytes().strip() == b"1"
            return (group / "freezer.state").read_bytes().strip() in (b"FROZEN", b"FREEZING")
        except OSError:  # it went away since it was listed
            return False

    def _state(self, group: Path) -> str:
        if self._is_v2:
            return "frozen" if b"frozen 1" in (group / "cgroup.events").read_bytes().splitlines() else ""
        return (group / "freezer.state").read_text().strip().lower()


def _node_part(root: Path, own: Path, is_v2: bool) -> Path:
    """Return the part of the hierarchy in which this node's pods are: the whole, unless the program's own place says more."""
    for line in own.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (controllers == "" if is_v2 else "freezer" in controllers.split(",")) and f"/{PODS}" in path:
            top = path[: path.index(f"/{PODS}") + 1]
            kind = path[len(top) :].split("/", 1)[0]
            return root / top.strip("/") / kind
    return root


def _write(file: Path, content: bytes) -> None:
    # Opened without O_CREAT: a hierarchy has no other files than the kernel's.
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
