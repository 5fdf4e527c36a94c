"""Containers of this node, found without the runtime: by their root file systems, which appear among the agent's own mounts.

That needs the runtime's folder of running containers mounted into the agent, read-only and with ``HostToContainer``, and its
folder of snapshots, read-only, at the path that it has on the node.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from torpor_hub.errors import PlaceError
from torpor_hub.oci.overlay_marks import Upper

ROOT = "rootfs"
POD, IMAGE = "io.kubernetes.cri.sandbox-uid", "io.kubernetes.cri.image-name"
ESCAPED = re.compile(r"\\([0-7]{3})")
LOWER = re.compile(r"((?:[^:\\]|\\.)+)(?::|$)")


@dataclass(frozen=True)
class Container:
    """A running container: where its changes are, and the image that it runs, as its pod names it."""

    id: str
    upper: Upper
    image: str


def find(container: str, pod_uid: str, mountinfo: Path = Path("/proc/self/mountinfo")) -> Container:
    """Return the container of that id.

    Raises:
        PlaceError: when it does not run here, belongs to another pod, or is of a runtime that keeps changes elsewhere.
    """
    for line in mountinfo.read_text().splitlines():
        place, _, source = line.partition(" - ")
        mounted = Path(_unescaped(place.split(" ")[4]))
        kind, _, options = source.split(" ", 2)
        if mounted.name == ROOT and mounted.parent.name == container:
            if kind != "overlay":
                raise PlaceError(
                    f"The container's file system is of the kind {kind}; saving needs the runtime's overlay snapshotter."
                )
            notes = _notes(mounted.parent, pod_uid)
            return Container(container, _upper(options), str(notes.get(IMAGE, "")))
    raise PlaceError(
        f"The container {container[:12]} does not run on this node, or the agent does not see the node's mounts; the runtime's"
        " folder of containers has to be mounted with HostToContainer."
    )


def _notes(bundle: Path, pod_uid: str) -> dict[str, str]:
    """Return what the runtime has noted of the container, after a check that it is of the pod that is meant."""
    try:
        notes = dict(json.loads((bundle / "config.json").read_bytes()).get("annotations") or {})
    except (OSError, ValueError) as error:
        raise PlaceError(f"What the runtime notes of the container cannot be read: {error}.") from error
    if notes.get(POD) != pod_uid:
        raise PlaceError(f"The container {bundle.name[:12]} is of the pod {notes.get(POD)}, not of {pod_uid}.")
    return notes


def _upper(options: str) -> Upper:
    """Return the upper directory that the options of an overlay mount name; lower ones may be relative to its snapshots."""
    upper, lowers, user_marks = None, [], False
    for option in options.split(","):
        name, _, escaped = option.partition("=")
        value = _unescaped(escaped)
        if name == "upperdir":
            upper = Path(_plain(value))
        elif name in ("lowerdir", "lowerdir+"):
            lowers += [_plain(lower) for lower in LOWER.findall(value)]
        elif name == "userxattr":
            user_marks = True
    if upper is None:
        raise PlaceError("The container's file system cannot be written to, so that there is nothing to save.")
    if not upper.is_dir():
        raise PlaceError(
            f"The container's changes are in {upper}, which the agent does not see; the runtime's folder of snapshots has to be"
            " mounted into it at the same path."
        )
    snapshots = upper.parent.parent
    return Upper(upper, tuple(snapshots / lower for lower in lowers), user_marks)


def _unescaped(text: str) -> str:
    """Return text of mountinfo without its octal escapes."""
    return ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
