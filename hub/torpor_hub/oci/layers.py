"""A folder to a layer, in one pass, and layers back to a folder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from torpor_hub.errors import CorruptImage, FileChanged, UnsafeArchive
from torpor_hub.oci import tarfmt
from torpor_hub.oci.images import LayerRecord
from torpor_hub.oci.streams import CHUNK_BYTES, Compressor, Decompressor, shifted
from torpor_hub.oci.tarfmt import Entry
from torpor_hub.oci.unpack import WHITEOUT, Unpacker, is_kept_xattr, remove_tree
from torpor_hub.oci.walk import Found, changed, open_file, read_link, same, shown, walk

NO_XATTRS = {errno.ENOTSUP, errno.ENODATA}
MAX_SKIPPED = 100

KINDS = {
    stat.S_IFREG: tarfmt.FILE,
    stat.S_IFDIR: tarfmt.DIRECTORY,
    stat.S_IFLNK: tarfmt.SYMLINK,
    stat.S_IFIFO: tarfmt.FIFO,
}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer just written. ``skipped`` names what a layer cannot hold, each with the reason."""

    record: LayerRecord
    entries: int
    bytes_read: int
    skipped: tuple[str, ...]


def write_layer(
    root: Path,
    sink: Callable[[bytes], object],
    *,
    excludes: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Layer:
    """Return the layer that holds everything in ``root``; its compressed bytes have gone to ``sink``.

    Kept are type, mode, owner, size, content, modification time in nanoseconds, targets of links, hard links within the
    folder, ``user.*`` attributes, capabilities and access lists, of the folder itself too. Sockets, devices and
    names that start with ``.wh.`` (a layer means a deletion by them) are skipped and named. Equal folders give equal
    bytes. ``progress`` is called with the bytes of content read so far and may raise to stop; whatever this raises, the
    sink has then been given a part that must be thrown away.

    Raises:
        FileChanged: a file or folder changed, grew, shrank or vanished while it was read.
        CaptureFailed: something cannot be read.
    """
    writer = LayerWriter(sink, progress)
    for found in walk(root, excludes):
        writer.add(found)
    return writer.finish()


class LayerWriter:
    """Writes the things that a walk finds as one layer, whose compressed bytes go to ``sink``.

    ``live`` is for a folder that is written to meanwhile: what vanishes is left out, and what shrinks is filled up with zeros.
    The caller has to find out what changed, and write that again.
    """

    def __init__(
        self, sink: Callable[[bytes], object], progress: Callable[[int], None] | None = None, *, live: bool = False
    ) -> None:
        self._out = Compressor(sink)
        self._progress = progress
        self._live = live
        self._links: dict[tuple[int, int], bytes] = {}
        self._hidden: bytes | None = None
        self._skipped: list[str] = []
        self._skips = 0
        self._entries = 0
        self._bytes_read = 0

    def add(self, found: Found) -> bool:
        """Write one thing, or note why it is skipped; return whether it was written.

        Raises:
            FileChanged: it changed meanwhile, and the folder is not ``live``.
            CaptureFailed: it cannot be read.
        """
        reason = self._reason_to_skip(found)
        if reason is not None:
            self._skip(found, reason)
            return False
        if self._progress:
            self._progress(self._bytes_read)
        try:
            self._add(found)
        except FileChanged:
            if not self._live:
                raise
            return False
        self._entries += 1
        return True

    def _add(self, found: Found) -> None:
        status = found.status
        identity = (status.st_dev, status.st_ino)
        linked = status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)
        if linked and identity in self._links:
            self._out.write(tarfmt.header(_entry(found, tarfmt.HARD_LINK, target=self._links[identity])))
            return
        self._add_new(found, KINDS[stat.S_IFMT(status.st_mode)])
        if linked:
            self._links[identity] = found.path

    def finish(self) -> Layer:
        """Return the layer after the end mark of the archive."""
        self._out.write(tarfmt.END)
        if self._skips > MAX_SKIPPED:
            self._skipped.append(f"and {self._skips - MAX_SKIPPED} more")
        return Layer(self._out.finish(), self._entries, self._bytes_read, tuple(self._skipped))

    def _add_new(self, found: Found, kind: bytes) -> None:
        if kind == tarfmt.FILE:
            self._add_file(found)
        elif kind == tarfmt.DIRECTORY:
            self._out.write(tarfmt.header(_entry(found, kind, xattrs=self._attributes(found, found.directory))))
        elif kind == tarfmt.SYMLINK:
            self._out.write(tarfmt.header(_entry(found, kind, target=read_link(found))))
        else:
            self._out.write(tarfmt.header(_entry(found, kind)))

    def _add_file(self, found: Found) -> None:
        size = found.status.st_size
        descriptor = open_file(found)
        try:
            xattrs = self._attributes(found, descriptor)
            self._out.write(tarfmt.header(_entry(found, tarfmt.FILE, size=size, xattrs=xattrs)))
            left = size
            while left:
                content = os.read(descriptor, min(left, CHUNK_BYTES)) or self._filling(found, left)
                self._out.write(content)
                left -= len(content)
                self._bytes_read += len(content)
                if self._progress:
                    self._progress(self._bytes_read)
            if not self._live and not same(os.fstat(descriptor), found.status):
                raise changed(found.path)
        finally:
            os.close(descriptor)
        self._out.write(tarfmt.padding(size))

    def _filling(self, found: Found, left: int) -> bytes:
        """Return zeros in place of what a file has lost since its header was written."""
        if not self._live:
            raise changed(found.path)
        return bytes(min(left, CHUNK_BYTES))

    def _attributes(self, found: Found, descriptor: int) -> tuple[tuple[bytes, bytes], ...]:
        """Return the extended attributes that the layer keeps."""
        del found
        return tuple((key, value) for key, value in read_xattrs(descriptor) if is_kept_xattr(key))

    def _reason_to_skip(self, found: Found) -> str | None:
        if self._hidden is not None and found.path.startswith(self._hidden):
            return ""
        self._hidden = None
        if found.name.startswith(os.fsdecode(WHITEOUT)):
            if stat.S_ISDIR(found.status.st_mode):
                self._hidden = found.path + b"/"
            return "a layer means a deletion by such a name"
        if stat.S_ISSOCK(found.status.st_mode):
            return "a socket"
        if stat.S_IFMT(found.status.st_mode) not in KINDS:
            return "a device"
        return None

    def _skip(self, found: Found, reason: str) -> None:
        if not reason:
            return
        self._skips += 1
        if self._skips <= MAX_SKIPPED:
            self._skipped.append(f"{shown(found.path)} ({reason})")


def _entry(
    found: Found,
    kind: bytes,
    *,
    size: int = 0,
    target: bytes = b"",
    xattrs: tuple[tuple[bytes, bytes], ...] = (),
) -> Entry:
    status = found.status
    mode = stat.S_IMODE(status.st_mode)
    return Entry(found.path, kind, mode, status.st_uid, status.st_gid, size, status.st_mtime_ns, target, xattrs)


def read_xattrs(descriptor: int) -> list[tuple[bytes, bytes]]:
    """Return all extended attributes that may be read, by name; none where the file system has none."""
    try:
        names = os.listxattr(descriptor)
        return [(os.fsencode(name), os.getxattr(descriptor, name)) for name in sorted(names)]
    except OSError as error:
        if error.errno in NO_XATTRS:
            return []
        raise


def apply_layer(
    source: BinaryIO,
    unpacker: Unpacker,
    *,
    expect: LayerRecord,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write the content of one layer into the folder of ``unpacker``, over what earlier layers wrote.

    Both digests are checked while reading; what was written is worth nothing when this raises.

    Raises:
        CorruptImage: the layer is not the one expected.
        UnsafeArchive: an entry names something outside of the folder, or something that is not restored.
    """
    content = Decompressor(source, expect, progress)
    members = tarfmt.Reader(content.read)
    unpacker.begin_layer()
    try:
        for entry in members:
            unpacker.add(entry, members.content())
    except (CorruptImage, UnsafeArchive):
        content.check_packed()
        raise
    content.check()


def restore(
    layers: Iterable[LayerRecord],
    open_blob: Callable[[str], BinaryIO],
    root: Path,
    *,
    progress: Callable[[int], None] | None = None,
) -> tuple[str, ...]:
    """Make ``root`` from ``layers``, whole or not at all, and return what could not be restored, each with the reason.

    The work happens in a sibling folder that a rename publishes at the end, so a ``root`` that exists is complete. What
    an interrupted attempt left is removed first. ``progress`` is called with the uncompressed bytes read so far and may
    raise to stop. Owners come back where the process may set them.

    Raises:
        FileExistsError: ``root`` is there already and not empty.
        CorruptImage: a layer does not read back as it was written.
        UnsafeArchive: a layer names something outside of the folder.
    """
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(errno.EEXIST, "there is something already, and it would be lost", str(root))
    partial = root.with_name(f".{root.name}.partial")
    remove_tree(partial)
    partial.mkdir(mode=0o700)
    try:
        with Unpacker(partial) as unpacker:
            done = 0
            for layer in layers:
                before, done = done, done + layer.uncompressed_bytes
                with open_blob(layer.digest) as source:
                    apply_layer(source, unpacker, expect=layer, progress=shifted(progress, before))
            left_out = unpacker.finish()
        partial.rename(root)
    finally:
        remove_tree(partial)
    return left_out
