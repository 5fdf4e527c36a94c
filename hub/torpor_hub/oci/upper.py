"""The upper directory of an overlay mount as a layer: what a container changed, deletions included.

A layer has names for deletions and for folders that hide what is below them (OCI image spec, "Whiteouts").
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Container, Sequence

from torpor_hub.oci import tarfmt
from torpor_hub.oci.layers import Layer, LayerWriter, read_xattrs
from torpor_hub.oci.overlay_marks import Upper, check_mark, hides, is_deletion
from torpor_hub.oci.scans import CLOCK_STEP_NS, UNKNOWN, Change, Scan
from torpor_hub.oci.tarfmt import Entry
from torpor_hub.oci.unpack import OPAQUE, WHITEOUT, is_kept_xattr
from torpor_hub.oci.walk import Found, walk

MAX_PATH_BYTES = 3840
"""A node restores below a folder of its own, and the whole may have 4095 bytes: a longer path makes an image unusable."""


def write_upper(
    upper: Upper,
    sink: Callable[[bytes], object],
    change: Change,
    *,
    excludes: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Layer:
    """Return the layer of ``change``; its compressed bytes have gone to ``sink``. Nothing may write meanwhile.

    Raises:
        FileChanged: something did.
        CaptureFailed: something cannot be read, or carries a mark of unknown meaning.
    """
    writer = _UpperWriter(upper, sink, progress, hiding=change.hiding)
    wanted = None if change.wanted is None else change.wanted.__contains__
    for found in walk(upper.path, excludes, wanted=wanted):
        writer.add(found)
    for path in change.gone:
        writer.write_deletion(path)
    return writer.finish()


def write_live(
    upper: Upper,
    sink: Callable[[bytes], object],
    before: Scan,
    *,
    excludes: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> tuple[Layer, dict[bytes, bytes]]:
    """Return the layer of all that there is, and what it holds, to be compared with a later scan.

    ``before`` is a scan after which the file system was written back: a store through a memory map that comes later than that
    moves the file's times again, so that it shows. What may have changed since is held as unknown.

    Raises:
        CaptureFailed: something cannot be read, or carries a mark of unknown meaning.
    """
    writer = _UpperWriter(upper, sink, progress, live=True)
    held = {}
    for found in walk(upper.path, excludes, live=True):
        if writer.add(found):
            known = before.entries.get(found.path, UNKNOWN)
            late = found.status.st_ctime_ns >= before.started_ns - CLOCK_STEP_NS
            held[found.path] = UNKNOWN if late else known
    return writer.finish(), held


class _UpperWriter(LayerWriter):
    """Writes what a walk over an upper directory finds. ``hiding`` None marks every folder that hides what is below it."""

    def __init__(
        self,
        upper: Upper,
        sink: Callable[[bytes], object],
        progress: Callable[[int], None] | None = None,
        *,
        live: bool = False,
        hiding: Container[bytes] | None = None,
    ) -> None:
        super().__init__(sink, progress, live=live)
        self._upper = upper
        self._hiding = hiding

    def add(self, found: Found) -> bool:
        """Write one thing; the top folder itself is the container's root, which a runtime makes anew."""
        return bool(found.path) and super().add(found)

    def write_deletion(self, path: bytes) -> None:
        """Write that what earlier layers have at ``path`` is gone."""
        parent, _, name = path.rpartition(b"/")
        self._write_mark((parent + b"/" if parent else b"") + WHITEOUT + name)

    def _add(self, found: Found) -> None:
        if is_deletion(found.status):
            self.write_deletion(found.path)
            return
        super()._add(found)
        is_new = self._hiding is None or found.path in self._hiding
        if is_new and stat.S_ISDIR(found.status.st_mode) and hides(self._upper, found.path, found.directory):
            self._write_mark(found.path + b"/" + OPAQUE)

    def _attributes(self, found: Found, descriptor: int) -> tuple[tuple[bytes, bytes], ...]:
        kept = []
        for key, value in read_xattrs(descriptor):
            if key.startswith(self._upper.prefix):
                check_mark(found, key.removeprefix(self._upper.prefix), value)
            elif is_kept_xattr(key):
                kept.append((key, value))
        return tuple(kept)

    def _reason_to_skip(self, found: Found) -> str | None:
        reason = super()._reason_to_skip(found)
        if reason == "":
            return reason
        if len(found.path) > MAX_PATH_BYTES:
            if stat.S_ISDIR(found.status.st_mode):
                self._hidden = found.path + b"/"
            return f"a path of {len(found.path)} bytes, over {MAX_PATH_BYTES}"
        return None if is_deletion(found.status) else reason

    def _write_mark(self, path: bytes) -> None:
        self._out.write(tarfmt.header(Entry(path, tarfmt.FILE, 0, 0, 0, 0, 0)))
